//! Reads what a step does: an action, a sub-workflow, a wait, an approval, a notice.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;

use super::draft::{Kind, Site};
use super::duration::parse_duration;
use super::read::{Fields, Reader};
use super::step::default_id;
use super::yaml::{Kind as Yaml, Node};
use crate::expression::Template;
use crate::graph::{Action, Compensate, Retry, SubWorkflow};
use crate::limits::ACTION_TIMEOUT_DEFAULT;
use crate::task::Delivery;

const DELIVERIES: &[(&str, Delivery)] =
    &[("at_least_once", Delivery::AtLeastOnce), ("at_most_once", Delivery::AtMostOnce)];

impl Reader<'_> {
    /// An agent's action, and what its id is made of.
    pub(super) fn action(&mut self, fields: Fields<'_>) -> (Kind, String) {
        let Some((_, node)) = fields.entry("action") else {
            return (Kind::Broken, String::new());
        };
        let name = self.name(node, "`action`");
        let mut action = self.action_fields(fields);
        let Some(name) = name else { return (Kind::Broken, String::new()) };
        let default_id = default_id(&name.text);
        if action.agent.is_none() {
            action.agent_position = name.position;
        }
        action.action = name.text;
        action.action_position = name.position;
        (Kind::Action(Box::new(action)), default_id)
    }

    /// All that an action says but its name.
    pub(super) fn action_fields(&mut self, fields: Fields<'_>) -> Action {
        let agent = fields.get("agent").and_then(|node| self.name(node, "`agent`"));
        let params = fields.get("params");
        let params = params.and_then(|node| self.params(node, "`params`", Site::Within));
        let timeout = fields.get("timeout").and_then(|node| self.duration(node, "`timeout`"));
        let retry = match fields.get("retry") {
            Some(node) => self.retry(node),
            None => Some(self.retry.clone().unwrap_or_else(Retry::none)),
        };
        let fallback = fields.get("fallback");
        let fallback =
            fallback.map(|node| self.names(node, "`fallback`", "agent types").unwrap_or_default());
        let queue_timeout = fields.get("queue_timeout");
        let queue_timeout = queue_timeout.and_then(|node| self.duration(node, "`queue_timeout`"));
        let requires = fields.get("requires").map(|node| self.requires(node));
        let compensate = fields.get("compensate").and_then(|node| self.compensate(node));
        let delivery = fields.get("delivery");
        let delivery = delivery.and_then(|node| self.choice(node, "`delivery`", DELIVERIES));
        let priority = fields.get("priority").and_then(|node| self.priority(node));
        Action {
            agent_position: agent.as_ref().map_or(fields.position, |agent| agent.position),
            agent: agent.map(|agent| agent.text),
            action: "".into(),
            action_position: fields.position,
            params,
            requires: Arc::new(requires.unwrap_or_default()),
            timeout: timeout.unwrap_or(ACTION_TIMEOUT_DEFAULT),
            queue_timeout,
            retry: retry.unwrap_or_default(),
            fallback: fallback.unwrap_or_default().into_iter().map(|word| word.text).collect(),
            compensate,
            delivery: delivery.unwrap_or_default(),
            priority,
        }
    }

    /// Labels and their values, which are text however they are written.
    fn requires(&mut self, node: &Node) -> BTreeMap<String, String> {
        let Yaml::Map(entries) = &node.kind else {
            self.wrong(node, "`requires`", "an object of labels, like `{region: eu}`");
            return BTreeMap::new();
        };
        let mut labels = BTreeMap::new();
        for (key, value) in entries {
            let what = format!("the label `{}`", super::yaml::shorten(&key.text));
            match (&value.kind, value.written(self.text)) {
                (Yaml::Text(text), _) if text.contains("${{") => {
                    let message = format!("{what} cannot be computed: it is plain text");
                    self.complaints.error(value.position, message);
                }
                (Yaml::Text(_) | Yaml::Number(_) | Yaml::Bool(_), Some(written)) => {
                    labels.insert(key.text.clone(), written.to_owned());
                }
                _ => self.wrong(value, &what, "text"),
            }
        }
        labels
    }

    fn compensate(&mut self, node: &Node) -> Option<Compensate> {
        if let Yaml::Text(_) = &node.kind {
            let action = self.name(node, "`compensate`")?;
            let position = action.position;
            return Some(Compensate { agent: None, action: action.text, position, params: None });
        }
        let Yaml::Map(_) = &node.kind else {
            let expected = "an action's name, or an object like `{agent: a, action: b}`";
            self.wrong(node, "`compensate`", expected);
            return None;
        };
        let fields = self.object(node, "`compensate`", &["agent", "action", "params"])?;
        let agent = fields.get("agent").map(|node| self.name(node, "`agent`"));
        let params = fields.get("params");
        let params = params.and_then(|node| self.params(node, "`params`", Site::Undo));
        let Some(action) = fields.get("action") else {
            self.lacks(fields, "`compensate`", "action", "`{agent: a, action: b}`");
            return None;
        };
        let action = self.name(action, "`action`")?;
        let agent = match agent {
            Some(agent) => Some(agent?.text),
            None => None,
        };
        Some(Compensate { agent, action: action.text, position: action.position, params })
    }

    /// Another workflow: `name` or `name@version`.
    pub(super) fn sub_workflow(&mut self, fields: Fields<'_>) -> (Kind, String) {
        let Some(node) = fields.get("workflow") else { return (Kind::Broken, String::new()) };
        let params = fields.get("params");
        let params = params.and_then(|node| self.params(node, "`params`", Site::Within));
        let timeout = fields.get("timeout").and_then(|node| self.duration(node, "`timeout`"));
        let Some(word) = self.name(node, "`workflow`") else {
            return (Kind::Broken, String::new());
        };
        let (name, version) = match word.text.rsplit_once('@') {
            Some((name, version)) => (name.trim(), Some(version.trim())),
            None => (&*word.text, None),
        };
        if name.is_empty() || version.is_some_and(str::is_empty) {
            let found = &word.text;
            let message = format!("`workflow` must be `name` or `name@version`, found `{found}`");
            self.complaints.error(node.position, message);
            return (Kind::Broken, String::new());
        }
        let workflow = SubWorkflow {
            name: name.into(),
            version: version.map(Into::into),
            name_position: word.position,
            params,
            timeout,
        };
        (Kind::Workflow(Box::new(workflow)), default_id(name))
    }

    /// `wait`, `wait_for`, `approve` or `notify`.
    pub(super) fn waiting(&mut self, fields: Fields<'_>, thing: &str) -> Kind {
        let Some(node) = fields.get(thing) else { return Kind::Broken };
        let kind = match thing {
            "wait" => self.wait(node),
            "wait_for" => self.wait_for(node, fields),
            "approve" => self.approve(node, fields),
            _ => self.notify(node),
        };
        kind.unwrap_or(Kind::Broken)
    }

    fn wait(&mut self, node: &Node) -> Option<Kind> {
        let Yaml::Text(text) = &node.kind else {
            // A bare number lacks its unit, and is told so.
            if matches!(node.kind, Yaml::Number(_)) {
                self.duration(node, "`wait`")?;
            }
            self.wrong(node, "`wait`", "a duration like `30s` or an RFC 3339 time");
            return None;
        };
        if !text.contains("${{")
            && DateTime::parse_from_rfc3339(text).is_err()
            && let Err(why) = parse_duration(text)
        {
            // What begins like a date was meant as one.
            let dated = text.len() >= 8 && text.as_bytes().get(4) == Some(&b'-');
            if dated {
                let example = "2026-12-24T18:00:00Z";
                self.wrong(node, "`wait`", &format!("a duration, or a time like `{example}`"));
            } else {
                self.bad_duration(node, "`wait`", text, &why);
            }
            return None;
        }
        let until = self.template(node, "`wait`", Site::Within)?;
        Some(Kind::Wait { until })
    }

    fn wait_for(&mut self, node: &Node, step: Fields<'_>) -> Option<Kind> {
        let what = "the `signal` of `wait_for`";
        if let Yaml::Text(_) = &node.kind {
            let timeout = self.one_timeout(None, step);
            let signal = self.text_template(node, what, Site::Within)?;
            return Some(Kind::WaitFor { signal, timeout });
        }
        let fields = self.object(node, "`wait_for`", &["signal", "timeout"])?;
        let timeout = self.one_timeout(Some(fields), step);
        let Some(signal) = fields.get("signal") else {
            self.lacks(fields, "`wait_for`", "signal", "`{signal: released, timeout: 1h}`");
            return None;
        };
        let signal = self.text_template(signal, what, Site::Within)?;
        Some(Kind::WaitFor { signal, timeout })
    }

    fn approve(&mut self, node: &Node, step: Fields<'_>) -> Option<Kind> {
        let what = "the `message` of `approve`";
        if let Yaml::Text(_) = &node.kind {
            let timeout = self.one_timeout(None, step);
            let message = self.text_template(node, what, Site::Within)?;
            return Some(Kind::Approve { message: Some(message), timeout });
        }
        let Yaml::Map(_) = &node.kind else {
            let expected = "text, or an object like `{message: Deploy?, timeout: 1d}`";
            self.wrong(node, "`approve`", expected);
            return None;
        };
        let fields = self.object(node, "`approve`", &["message", "timeout"])?;
        let timeout = self.one_timeout(Some(fields), step);
        let message = match fields.get("message") {
            Some(node) => Some(self.text_template(node, what, Site::Within)?),
            None => None,
        };
        Some(Kind::Approve { message, timeout })
    }

    /// The time-out, which may stand inside or on the step, but not twice.
    fn one_timeout(
        &mut self,
        inside: Option<Fields<'_>>,
        step: Fields<'_>,
    ) -> Option<std::time::Duration> {
        let inside = inside.and_then(|fields| fields.get("timeout"));
        let outside = step.get("timeout");
        if let (Some(_), Some(outside)) = (inside, outside) {
            let message = "`timeout` is given twice, on the step and inside";
            self.complaints.error(outside.position, message);
        }
        inside.or(outside).and_then(|node| self.duration(node, "`timeout`"))
    }

    fn notify(&mut self, node: &Node) -> Option<Kind> {
        let of = "channels, like `slack`";
        let Yaml::Map(_) = &node.kind else {
            let channels = self.names(node, "`notify`", of)?;
            return self.channels(node, channels, None);
        };
        let fields = self.object(node, "`notify`", &["channel", "channels", "message"])?;
        let message = match fields.get("message") {
            Some(node) => {
                Some(self.text_template(node, "the `message` of `notify`", Site::Within)?)
            }
            None => None,
        };
        let Some(channels) = fields.get("channel").or_else(|| fields.get("channels")) else {
            self.lacks(fields, "`notify`", "channel", "`{channel: slack, message: Done}`");
            return None;
        };
        let names = self.names(channels, "the `channel` of `notify`", of)?;
        self.channels(channels, names, message)
    }

    fn channels(
        &mut self,
        node: &Node,
        channels: Vec<super::draft::Word>,
        message: Option<Template>,
    ) -> Option<Kind> {
        if channels.is_empty() {
            self.complaints.error(node.position, "`notify` must name at least one channel");
            return None;
        }
        let channels = channels.into_iter().map(|word| word.text).collect();
        Some(Kind::Notify { channels, message })
    }
}
