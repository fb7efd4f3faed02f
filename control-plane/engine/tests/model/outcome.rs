//! What the model tells of a run that has ended: an entry per step, and the rest of the result.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::interpret::{Is, Model};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) status: &'static str,
    pub(crate) output: Value,
    pub(crate) error: Option<String>,
    pub(crate) attempts: u32,
}

impl Model<'_> {
    pub(crate) fn entries(&self) -> BTreeMap<String, Entry> {
        let mut entries = BTreeMap::new();
        for (at, live) in self.lives.iter().enumerate() {
            let entry = Entry {
                status: live.is.word(),
                output: live.output.clone(),
                error: live.error.clone(),
                attempts: live.attempt,
            };
            entries.insert(live.path.clone(), entry);
            let node = self.node(at);
            // Branches that were not taken are skipped with all that is in them. How often a loop
            // would have run is not known, so it has no entries but its own.
            if live.is.settled() && node.loops().is_none() {
                let taken =
                    live.scopes.first().map(|scope| self.lives[self.scopes[*scope].lives[0]].list);
                for list in node.inner.iter().filter(|list| Some(**list) != taken) {
                    self.untaken(*list, &live.path, &mut entries);
                }
            }
        }
        entries
    }

    fn untaken(&self, list: usize, above: &str, entries: &mut BTreeMap<String, Entry>) {
        for node in &self.plan.lists[list].nodes {
            let path = format!("{above}.{}", self.workflow.ids[node.step.key]);
            if node.loops().is_none() {
                for inner in &node.inner {
                    self.untaken(*inner, &path, entries);
                }
            }
            let status = Is::Skipped.word();
            entries.insert(path, Entry { status, output: Value::Null, error: None, attempts: 0 });
        }
    }

    /// All entries but those of `on_failure`, those that went well, failed and were skipped.
    pub(crate) fn counts(&self) -> [u32; 4] {
        let mut counts = [0; 4];
        for (path, entry) in self.entries() {
            if path.starts_with("on_failure.") {
                continue;
            }
            counts[0] += 1;
            match entry.status {
                "success" => counts[1] += 1,
                "failure" => counts[2] += 1,
                "skipped" => counts[3] += 1,
                _ => {}
            }
        }
        counts
    }

    pub(crate) fn outputs(&self) -> Value {
        let outputs = self.workflow.outputs.iter();
        let outputs: Map<String, Value> =
            outputs.map(|(name, expr)| (name.clone(), self.whole_output(expr))).collect();
        Value::Object(outputs)
    }
}
