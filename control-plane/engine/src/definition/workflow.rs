//! Reads the whole: its name, its schedule, what happens on failure, its outputs.

use std::sync::Arc;

use super::draft::{List, Site};
use super::read::{Fields, Reader};
use super::schedule::{ScheduleError, Timer};
use super::step::Within;
use super::yaml::{Kind, Node, shorten};
use crate::graph::{CatchUp, FailureScope, Overlap, Rollback, Schedule};

const WORKFLOW: &[&str] = &[
    "name",
    "version",
    "description",
    "params",
    "outputs",
    "schedule",
    "steps",
    "error_handling",
    "fail_fast",
    "deadline",
    "priority",
    "concurrency",
    "rate_limit",
];
const ERROR_HANDLING: &[&str] = &["retry", "on_failure", "rollback", "rollback_approval", "scope"];
const ROLLBACKS: &[(&str, Rollback)] = &[
    ("none", Rollback::None),
    ("to_start", Rollback::ToStart),
    ("to_checkpoint", Rollback::ToCheckpoint),
];
const SCOPES: &[(&str, FailureScope)] =
    &[("run", FailureScope::Run), ("branch", FailureScope::Branch)];
const CATCH_UPS: &[(&str, CatchUp)] =
    &[("none", CatchUp::None), ("latest", CatchUp::Latest), ("all", CatchUp::All)];
const OVERLAPS: &[(&str, Overlap)] = &[("allow", Overlap::Allow), ("skip", Overlap::Skip)];

impl Reader<'_> {
    /// Reads everything into the draft.
    pub(super) fn workflow(&mut self, node: &Node) {
        let Some(fields) = self.object(node, "a workflow", WORKFLOW) else { return };
        self.describe(fields);
        if let Some(node) = fields.get("params") {
            self.declarations(node);
        }
        // The default of `retry` is needed by the steps, wherever it stands.
        let handling = fields.get("error_handling");
        let handling =
            handling.and_then(|node| self.object(node, "`error_handling`", ERROR_HANDLING));
        if let Some(node) = handling.and_then(|fields| fields.get("retry")) {
            self.retry = self.retry(node);
        }
        let whole = Within { parent: None, depth: 0 };
        match fields.get("steps") {
            Some(node) => {
                self.list(node, "`steps`", whole, false);
            }
            None => {
                self.missing(fields, "steps");
                // List 0 is that of the whole, even when there is none.
                self.draft.lists.push(List::default());
            }
        }
        if let Some(handling) = handling {
            self.error_handling(handling, whole);
        }
        if let Some(node) = fields.get("outputs") {
            self.outputs(node);
        }
        if let Some(node) = fields.get("schedule") {
            self.draft.schedule = self.schedule(node);
        }
        self.draft.uses = std::mem::take(&mut self.uses);
        self.draft.steps = self.steps.drain(..).flatten().collect();
    }

    fn missing(&mut self, fields: Fields<'_>, field: &str) {
        if fields.mistyped(&[field]) {
            return;
        }
        let message = format!("the workflow lacks `{field}`");
        self.complaints.error_suggesting(fields.position, message, field);
    }

    /// What is told of the whole and bounds it.
    fn describe(&mut self, fields: Fields<'_>) {
        match fields.get("name") {
            None => self.missing(fields, "name"),
            Some(node) => {
                if let Some(name) = self.name(node, "`name`") {
                    if name.text.contains('@') {
                        let message = "a `name` with `@` cannot be named as a sub-workflow, where \
                                       `@` stands before the version";
                        self.complaints.warning(node.position, message, "");
                    }
                    self.draft.name = name.text;
                }
            }
        }
        if let Some(node) = fields.get("version") {
            let version = self.name(node, "`version`");
            self.draft.version = version.map_or_else(String::new, |word| word.text.to_string());
        }
        if let Some(node) = fields.get("description")
            && !matches!(node.kind, Kind::Null)
        {
            self.draft.description = self.text(node, "`description`").unwrap_or_default();
        }
        let fail_fast = fields.get("fail_fast");
        let fail_fast = fail_fast.and_then(|node| self.boolean(node, "`fail_fast`"));
        self.draft.fail_fast = fail_fast.unwrap_or(false);
        let deadline = fields.get("deadline");
        self.draft.deadline = deadline.and_then(|node| self.duration(node, "`deadline`"));
        self.draft.priority = fields.get("priority").and_then(|node| self.priority(node));
        let concurrency = fields.get("concurrency");
        self.draft.concurrency = concurrency.and_then(|node| self.concurrency(node, Site::Start));
        let rate_limit = fields.get("rate_limit");
        self.draft.rate_limit = rate_limit.and_then(|node| self.rate_limit(node, Site::Start));
    }

    fn error_handling(&mut self, fields: Fields<'_>, whole: Within) {
        if let Some(node) = fields.get("on_failure") {
            let list = self.list(node, "`on_failure`", whole, true);
            let empty = self.draft.lists[list].groups.is_empty();
            self.draft.on_failure = (!empty).then_some(list);
        }
        if let Some(node) = fields.get("rollback") {
            self.draft.rollback = self.choice(node, "`rollback`", ROLLBACKS).unwrap_or_default();
            self.draft.rollback_place = Some(node.position);
        }
        if let Some(node) = fields.get("rollback_approval") {
            let needed = self.boolean(node, "`rollback_approval`");
            self.draft.rollback_approval = needed.unwrap_or(false);
        }
        if let Some(node) = fields.get("scope") {
            self.draft.scope = self.choice(node, "`scope`", SCOPES).unwrap_or_default();
        }
    }

    fn outputs(&mut self, node: &Node) {
        let entries = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Null => return,
            _ => {
                self.wrong(node, "`outputs`", "an object of names and expressions");
                return;
            }
        };
        for (key, node) in entries {
            let what = format!("the output `{}`", shorten(&key.text));
            if let Some(expression) = self.expression(node, &what, Site::Outputs) {
                self.draft.outputs.push((Arc::from(&*key.text), expression));
            }
        }
    }

    fn schedule(&mut self, node: &Node) -> Option<Schedule> {
        let mut schedule = Schedule {
            cron: String::new(),
            timezone: "UTC".to_owned(),
            catch_up: CatchUp::None,
            overlap: Overlap::Skip,
        };
        let mut zone_node = None;
        let cron_node = match &node.kind {
            Kind::Text(_) => node,
            Kind::Map(_) => {
                let known = &["cron", "timezone", "catch_up", "overlap"];
                let fields = self.object(node, "`schedule`", known)?;
                if let Some(node) = fields.get("catch_up") {
                    schedule.catch_up = self.choice(node, "`catch_up`", CATCH_UPS)?;
                }
                if let Some(node) = fields.get("overlap") {
                    schedule.overlap = self.choice(node, "`overlap`", OVERLAPS)?;
                }
                if let Some(node) = fields.get("timezone") {
                    schedule.timezone = self.text(node, "`timezone`")?;
                    zone_node = Some(node);
                }
                let Some(cron) = fields.get("cron") else {
                    self.lacks(fields, "`schedule`", "cron", "`{cron: \"*/5 * * * *\"}`");
                    return None;
                };
                cron
            }
            _ => {
                self.wrong(node, "`schedule`", "a cron expression like `*/5 * * * *`");
                return None;
            }
        };
        schedule.cron = self.text(cron_node, "`cron`")?;
        match Timer::new(&schedule.cron, &schedule.timezone) {
            Ok(_) => Some(schedule),
            Err(ScheduleError::Cron(message)) => {
                self.complaints.error(cron_node.position, message);
                None
            }
            Err(ScheduleError::Timezone(message, meant)) => {
                let position = zone_node.map_or(node.position, |node| node.position);
                let suggestion = meant.unwrap_or_default();
                self.complaints.error_suggesting(position, message, suggestion);
                None
            }
        }
    }
}
