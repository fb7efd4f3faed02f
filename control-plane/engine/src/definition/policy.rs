//! Reads the policies that steps and the whole have in common: retry, concurrency, rate limit.

use super::draft::{Concurrency, RateLimit, Site};
use super::read::Reader;
use super::yaml::{Kind, Node};
use crate::graph::{Backoff, OnConflict, Retry};
use crate::limits::PRIORITY_MAX;

const RETRY: &[&str] =
    &["max_attempts", "backoff", "delay", "max_delay", "jitter", "retry_on", "no_retry_on"];
const BACKOFFS: &[(&str, Backoff)] = &[
    ("exponential", Backoff::Exponential),
    ("linear", Backoff::Linear),
    ("constant", Backoff::Constant),
];
const ON_CONFLICT: &[(&str, OnConflict)] = &[
    ("queue", OnConflict::Queue),
    ("cancel_running", OnConflict::CancelRunning),
    ("reject", OnConflict::Reject),
];
/// Attempts beyond this are an endless loop by another name.
const ATTEMPTS_MAX: u32 = 10_000;

impl Reader<'_> {
    pub(super) fn retry(&mut self, node: &Node) -> Option<Retry> {
        let fields = self.object(node, "`retry`", RETRY)?;
        let mut retry = Retry::default();
        match fields.get("max_attempts") {
            Some(node) => {
                let range = 1..=ATTEMPTS_MAX;
                retry.max_attempts = self.integer(node, "`max_attempts`", range).unwrap_or(1);
            }
            None => {
                let message =
                    "`retry` without `max_attempts` makes one attempt, as without `retry`";
                self.complaints.warning(fields.position, message, "max_attempts");
            }
        }
        if let Some(node) = fields.get("backoff") {
            retry.backoff = self.choice(node, "`backoff`", BACKOFFS).unwrap_or(retry.backoff);
        }
        if let Some(node) = fields.get("delay") {
            retry.delay = self.duration(node, "`delay`").unwrap_or(retry.delay);
        }
        if let Some(node) = fields.get("max_delay") {
            retry.max_delay = self.duration(node, "`max_delay`");
            if retry.max_delay.is_some_and(|longest| longest < retry.delay) {
                let message = "`max_delay` is shorter than `delay`: every delay is `max_delay`";
                self.complaints.warning(node.position, message, "");
            }
        }
        if let Some(node) = fields.get("jitter") {
            retry.jitter = self.share(node, "`jitter`").unwrap_or(retry.jitter);
        }
        for (name, codes) in
            [("retry_on", &mut retry.retry_on), ("no_retry_on", &mut retry.no_retry_on)]
        {
            if let Some(node) = fields.get(name) {
                let names = self.names(node, &format!("`{name}`"), "error codes");
                codes.extend(names.unwrap_or_default().iter().map(|code| code.text.to_string()));
            }
        }
        Some(retry)
    }

    /// A share from 0 to 1, or in percent.
    fn share(&mut self, node: &Node, what: &str) -> Option<f64> {
        let share = match &node.kind {
            Kind::Number(number) => number.as_f64(),
            Kind::Text(text) => text
                .strip_suffix('%')
                .and_then(|number| number.trim().parse::<f64>().ok())
                .map(|percent| percent / 100.0),
            _ => None,
        };
        let share = share.filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            self.wrong(node, what, "a share from 0 to 1, like `0.1` or `10%`");
        }
        share
    }

    pub(super) fn priority(&mut self, node: &Node) -> Option<u8> {
        let value = self.integer(node, "`priority`", 0..=u32::from(PRIORITY_MAX))?;
        u8::try_from(value).ok()
    }

    pub(super) fn concurrency(&mut self, node: &Node, site: Site) -> Option<Concurrency> {
        let what = "the `key` of `concurrency`";
        if let Kind::Text(_) = &node.kind {
            let key = self.text_template(node, "`concurrency`", site)?;
            return Some(Concurrency { key, limit: 1, on_conflict: OnConflict::Queue });
        }
        let known = &["key", "limit", "on_conflict"];
        let fields = self.object(node, "`concurrency`", known)?;
        let limit = match fields.get("limit") {
            Some(node) => self.integer(node, "`limit`", 1..=u32::MAX),
            None => Some(1),
        };
        let on_conflict = match fields.get("on_conflict") {
            Some(node) => self.choice(node, "`on_conflict`", ON_CONFLICT),
            None => Some(OnConflict::Queue),
        };
        let Some(key) = fields.get("key") else {
            self.lacks(fields, "`concurrency`", "key", "`{key: deploy, limit: 1}`");
            return None;
        };
        let key = self.text_template(key, what, site)?;
        Some(Concurrency { key, limit: limit?, on_conflict: on_conflict? })
    }

    pub(super) fn rate_limit(&mut self, node: &Node, site: Site) -> Option<RateLimit> {
        let fields = self.object(node, "`rate_limit`", &["key", "limit", "per"])?;
        let key = fields.get("key");
        let key = key.map(|key| self.text_template(key, "the `key` of `rate_limit`", site));
        for name in ["limit", "per"] {
            if fields.get(name).is_none() {
                self.lacks(fields, "`rate_limit`", name, "`{limit: 10, per: 1m}`");
            }
        }
        let limit = fields.get("limit");
        let limit = limit.map(|limit| self.integer(limit, "`limit`", 1..=u32::MAX));
        let per = fields.get("per").map(|per| self.duration(per, "`per`"));
        let key = match key {
            Some(key) => Some(key?),
            None => None,
        };
        Some(RateLimit { key, limit: limit??, per: per?? })
    }
}
