//! What the actions do: log an error, take it back, sum up a window of time. The time of day
//! comes in from outside.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use project_files::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fingerprint::{fingerprint, presentable, shortened};
use crate::limits;
use crate::log::{Log, Record, Written};

/// What `log_error` takes. All of it is optional: under `on_failure` the failed step and its
/// error are taken from the failure.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogError {
    /// What happened; the text of `error` unless given.
    #[serde(default)]
    pub message: Option<String>,
    /// The error as it came, text or any other value.
    #[serde(default)]
    pub error: Option<Value>,
    /// The step that failed.
    #[serde(default)]
    pub step: Option<String>,
    /// The run that failed; the task's own run unless given.
    #[serde(default)]
    pub run: Option<String>,
    /// The failure as a whole: an object with `step` and `error`.
    #[serde(default)]
    pub failure: Option<Value>,
}

/// What `log_error` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Logged {
    /// Equal for equal errors: numbers, ids, paths and the like do not count.
    pub fingerprint: String,
    /// The message as it is kept, without secrets.
    pub message: String,
    /// The step that failed; empty when unknown.
    pub step: String,
    /// The run that failed; empty when unknown.
    pub run: String,
    /// When it was logged, in RFC 3339.
    pub logged_at: String,
}

/// What the undo of `log_error` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Whether there was a record.
    pub removed: bool,
}

/// What `track_errors` takes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrackErrors {
    /// How far to look back; five minutes unless given, at most thirty days.
    #[serde(default)]
    pub window: Option<Span>,
    /// How much was tried in the window, errors included. Without it each minute of the window
    /// counts as one try, which failed when an error was logged in it.
    #[serde(default)]
    pub total: Option<u64>,
}

/// What `track_errors` gives.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Tracked {
    /// The share of tries that failed, 0 to 1; 0 when no error was logged.
    pub error_rate: f64,
    /// How many errors were logged in the window.
    pub errors: u64,
    /// How many tries there were: `total` as given, else the minutes of the window.
    pub total: u64,
    /// How many of these tries failed.
    pub failed: u64,
    /// How far it looked back, in seconds.
    pub window_seconds: f64,
    /// Each kind of error, the most frequent first; at most 100.
    pub fingerprints: Vec<Fingerprint>,
    /// How many kinds of errors there are.
    pub fingerprints_total: u64,
    /// When it looked, in RFC 3339.
    pub collected_at: String,
}

/// One kind of error.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Fingerprint {
    /// What tells it from others.
    pub fingerprint: String,
    /// The message of its last occurrence.
    pub message: String,
    /// How often it occurred in the window.
    pub count: u64,
    /// When it occurred first in the window, in RFC 3339.
    pub first_seen: String,
    /// When it occurred last, in RFC 3339.
    pub last_seen: String,
}

/// Why an action failed.
#[derive(Debug)]
pub enum Error {
    /// The input is wrong.
    Input(String),
    /// The task was undone before it was done.
    Undone,
    /// The log cannot be read or written.
    Log(io::Error),
}

/// The tracker over one log.
#[derive(Debug)]
pub struct Tracker {
    log: Log,
}

impl Tracker {
    /// The tracker of the log in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { log: Log::new(folder) }
    }

    /// Logs an error once for the key.
    pub fn log_error(
        &self,
        input: &LogError,
        key: &str,
        own_run: &str,
        now: DateTime<Utc>,
    ) -> Result<Logged, Error> {
        let message = presentable(&message_of(input));
        let name = |text: &str| shortened(text, limits::NAME_BYTES_MAX);
        let record = Record {
            key: key.to_owned(),
            at: now,
            fingerprint: fingerprint(&message),
            message,
            step: name(&step_of(input)),
            run: name(input.run.as_deref().unwrap_or(own_run)),
        };
        let record = match self.log.write(record).map_err(Error::Log)? {
            Written::New(record) | Written::Before(record) => record,
            Written::Removed => return Err(Error::Undone),
        };
        Ok(Logged {
            fingerprint: record.fingerprint,
            message: record.message,
            step: record.step,
            run: record.run,
            logged_at: rfc3339(record.at),
        })
    }

    /// Takes back what was logged under the key, now or later.
    pub fn remove_error(&self, key: &str, now: DateTime<Utc>) -> Result<Removed, Error> {
        let record = self.log.remove(key, now).map_err(Error::Log)?;
        Ok(Removed { removed: record.is_some() })
    }

    /// Sums up the window that ends now.
    pub fn track_errors(&self, input: &TrackErrors, now: DateTime<Utc>) -> Result<Tracked, Error> {
        let window = window_of(input)?;
        let since = now - chrono::Duration::from_std(window).unwrap_or_default();
        let records = self.log.since(since).map_err(Error::Log)?;
        let errors = records.len() as u64;
        let (failed, total) = match input.total {
            // More errors than tries: the count of tries lags behind.
            Some(total) => (errors.min(total.max(1)), total.max(errors.min(1))),
            None => intervals(&records, window, now),
        };
        let fingerprints = group(&records);
        Ok(Tracked {
            error_rate: rate(failed, total),
            errors,
            total,
            failed,
            window_seconds: window.as_secs_f64(),
            fingerprints_total: fingerprints.len() as u64,
            fingerprints: fingerprints.into_iter().take(limits::FINGERPRINTS_SHOWN_MAX).collect(),
            collected_at: rfc3339(now),
        })
    }
}

fn message_of(input: &LogError) -> String {
    let given = input.message.clone().filter(|text| !text.trim().is_empty());
    let failure = input.failure.as_ref();
    let from_failure = failure.map(|value| value.get("error").unwrap_or(value));
    given
        .or_else(|| text_of(input.error.as_ref()))
        .or_else(|| text_of(from_failure))
        .unwrap_or_else(|| "an error of which nothing is told".to_owned())
}

fn text_of(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) if fields.get("message").is_some_and(Value::is_string) => {
            text_of(fields.get("message"))
        }
        other => Some(other.to_string()),
    }
}

fn step_of(input: &LogError) -> String {
    let from_failure = || {
        let step = input.failure.as_ref()?.get("step")?;
        step.as_str().map(str::to_owned)
    };
    input.step.clone().or_else(from_failure).unwrap_or_default()
}

fn window_of(input: &TrackErrors) -> Result<Duration, Error> {
    let Some(span) = &input.window else {
        return Ok(limits::WINDOW);
    };
    let window = span.duration().map_err(|what| Error::Input(format!("window: {what}")))?;
    if window > limits::WINDOW_MAX {
        let days = limits::WINDOW_MAX.as_secs() / 86_400;
        return Err(Error::Input(format!("window: at most {days} days")));
    }
    Ok(window)
}

/// How many intervals of the window have an error, and how many there are.
fn intervals(records: &[Record], window: Duration, now: DateTime<Utc>) -> (u64, u64) {
    let length = limits::INTERVAL.as_millis();
    let total = window.as_millis().div_ceil(length).max(1);
    let interval_of = |record: &Record| {
        // Another machine's clock may be ahead.
        let age = (now - record.at).to_std().unwrap_or_default();
        (age.as_millis() / length).min(total - 1)
    };
    let failed: HashSet<u128> = records.iter().map(interval_of).collect();
    (failed.len() as u64, u64::try_from(total).unwrap_or(u64::MAX))
}

fn rate(failed: u64, total: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = failed as f64 / total.max(1) as f64;
    rate.min(1.0)
}

fn group(records: &[Record]) -> Vec<Fingerprint> {
    struct Group<'a> {
        first: &'a Record,
        last: &'a Record,
        count: u64,
    }
    let mut groups: HashMap<&str, Group<'_>> = HashMap::new();
    for record in records {
        let group = groups.entry(&record.fingerprint).or_insert(Group {
            first: record,
            last: record,
            count: 0,
        });
        group.count += 1;
        if record.at < group.first.at {
            group.first = record;
        }
        if record.at > group.last.at {
            group.last = record;
        }
    }
    let mut found: Vec<Fingerprint> = groups
        .into_values()
        .map(|group| Fingerprint {
            fingerprint: group.last.fingerprint.clone(),
            message: group.last.message.clone(),
            count: group.count,
            first_seen: rfc3339(group.first.at),
            last_seen: rfc3339(group.last.at),
        })
        .collect();
    found.sort_by(|left, right| {
        let order = right.count.cmp(&left.count);
        order.then_with(|| left.fingerprint.cmp(&right.fingerprint))
    });
    found
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
    }

    fn logged(tracker: &Tracker, input: Value, key: &str, at: i64) -> Logged {
        let input = serde_json::from_value(input).unwrap();
        tracker.log_error(&input, key, "own", time(at)).unwrap()
    }

    fn tracked(tracker: &Tracker, input: Value, at: i64) -> Tracked {
        let input = serde_json::from_value(input).unwrap();
        tracker.track_errors(&input, time(at)).unwrap()
    }

    #[test]
    fn with_nothing_logged_the_rate_is_zero() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::new(folder.path().join("none"));
        for input in [json!({}), json!({"total": 0}), json!({"total": 7, "window": "1h"})] {
            let tracked = tracked(&tracker, input, 0);
            assert_eq!((tracked.error_rate.to_string(), tracked.errors), ("0".to_owned(), 0));
            assert!(tracked.fingerprints.is_empty());
        }
    }

    #[test]
    fn the_rate_is_failed_tries_of_all_tries() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::new(folder.path().to_owned());
        for (key, at) in [("a", 10), ("b", 20), ("c", 100), ("d", 299)] {
            logged(&tracker, json!({"message": format!("timed out after {at} s")}), key, at);
        }
        let shown = |input: Value| {
            let tracked = tracked(&tracker, input, 300);
            (tracked.errors, tracked.failed, tracked.total, tracked.error_rate.to_string())
        };
        assert_eq!(shown(json!({})), (4, 3, 5, "0.6".to_owned()));
        assert_eq!(shown(json!({"window": "1m"})), (1, 1, 1, "1".to_owned()));
        assert_eq!(shown(json!({"window": 600, "total": 40})), (4, 4, 40, "0.1".to_owned()));
        assert_eq!(shown(json!({"total": 2})), (4, 2, 2, "1".to_owned()));
        assert_eq!(shown(json!({"total": 0})), (4, 1, 1, "1".to_owned()));
        let one = &tracked(&tracker, json!({}), 300).fingerprints;
        assert_eq!((one.len(), one[0].count), (1, 4));
        assert_eq!(one[0].message, "timed out after 299 s");
        assert!(one[0].first_seen < one[0].last_seen);
    }

    #[test]
    fn what_is_left_out_is_taken_from_the_failure() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::new(folder.path().to_owned());
        let expect = |input: Value, key: &str, message: &str, step: &str| {
            let logged = logged(&tracker, input, key, 0);
            assert_eq!((logged.message.as_str(), logged.step.as_str()), (message, step));
            assert_eq!(logged.run, "own");
        };
        expect(json!({"step": "a", "error": "no"}), "1", "no", "a");
        expect(json!({"failure": {"step": "b", "error": {"message": "x"}}}), "2", "x", "b");
        expect(json!({"error": {"code": 7}}), "3", "{\"code\":7}", "");
        expect(json!({}), "4", "an error of which nothing is told", "");
    }

    #[test]
    fn undo_removes_that_record_alone_and_refuses_it_later() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::new(folder.path().to_owned());
        logged(&tracker, json!({"message": "a"}), "a", 0);
        logged(&tracker, json!({"message": "b"}), "b", 0);
        assert!(tracker.remove_error("a", time(1)).unwrap().removed);
        assert!(!tracker.remove_error("a", time(2)).unwrap().removed);
        let left = tracked(&tracker, json!({}), 3);
        assert_eq!((left.errors, left.fingerprints[0].message.as_str()), (1, "b"));
        assert!(!tracker.remove_error("c", time(4)).unwrap().removed);
        let late = tracker.log_error(&LogError::default(), "c", "", time(5));
        assert!(matches!(late, Err(Error::Undone)));
    }

    #[test]
    fn a_wrong_window_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::new(folder.path().to_owned());
        for window in [json!("soon"), json!(-1), json!("31d")] {
            let input = serde_json::from_value(json!({"window": window})).unwrap();
            let error = tracker.track_errors(&input, time(0)).unwrap_err();
            assert!(matches!(error, Error::Input(text) if text.starts_with("window: ")));
        }
    }
}
