//! Checkpoints, and what stands at them: how many steps had settled, and a hash over all that did,
//! each mixed in as it settles. A checkpoint costs the same however much stands before it.

use std::sync::Arc;

use crate::event::RunStarted;
use crate::graph::Graph;
use crate::id::{ContentHash, InstanceId, Instant};
use crate::instance::Status;
use crate::limits;
use crate::lookup::status_word;
use crate::state::State;

/// A consistent point of a run with a name.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointMark {
    pub(crate) name: Arc<str>,
    /// The sequence of the event it stands behind.
    pub(crate) sequence: u32,
    pub(crate) at: Instant,
    pub(crate) step: InstanceId,
    /// How many steps had settled.
    pub(crate) settled: u32,
    /// The hash over all that is said of it.
    pub(crate) content: ContentHash,
}

/// The hash to begin with, where the workflow has checkpoints.
pub(crate) fn at_start(graph: &Graph, started: &RunStarted) -> Option<ContentHash> {
    let has_some = graph.nodes.iter().any(|node| node.checkpoint.is_some());
    has_some.then(|| ContentHash::of(started.params.as_bytes()))
}

/// A hash over `parts`, each with its length before it.
fn over(parts: &[&[u8]]) -> ContentHash {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    ContentHash::of(&bytes)
}

impl State {
    pub(crate) fn mix_content(&mut self, parts: &[&[u8]]) {
        if let Some(content) = self.content {
            let mut all: Vec<&[u8]> = vec![&content.0];
            all.extend_from_slice(parts);
            self.content = Some(over(&all));
        }
    }

    pub(crate) fn params_hash(&self) -> ContentHash {
        ContentHash::of(self.started.params.as_bytes())
    }

    /// A step settles; its output is there already, if it has one.
    pub(crate) fn note_content(&mut self, n: InstanceId, status: Status) {
        self.settled += 1;
        if self.content.is_none() {
            return;
        }
        let path = self.path(n);
        let output = self.instances[n.index()].output.as_ref();
        let output = output.map(|output| ContentHash::of(output.as_bytes()));
        let output = output.as_ref().map_or(&[][..], |hash| &hash.0);
        self.mix_content(&[path.as_bytes(), status_word(status).as_bytes(), output]);
    }

    pub(crate) fn mark_checkpoint(&mut self, name: &Arc<str>, step: InstanceId, at: Instant) {
        let (name, sequence) = (Arc::clone(name), self.sequence());
        let content = self.content_at(sequence, self.content);
        let settled = self.settled;
        self.checkpoints.push_back(CheckpointMark { name, sequence, at, step, settled, content });
        if self.checkpoints.len() > limits::CHECKPOINTS_MAX
            && let Some(oldest) = self.checkpoints.pop_front()
        {
            self.notes.checkpoints.push((oldest, sequence, at));
        }
    }

    /// What was done behind `target` is as if it had not happened.
    pub(crate) fn drop_checkpoints(&mut self, target: u32, at: Instant) {
        let sequence = self.sequence();
        let first = self.checkpoints.partition_point(|mark| mark.sequence <= target);
        let gone = self.checkpoints.split_off(first);
        self.notes.checkpoints.extend(gone.into_iter().map(|mark| (mark, sequence, at)));
    }

    fn content_at(&self, sequence: u32, content: Option<ContentHash>) -> ContentHash {
        let content = content.unwrap_or_else(|| self.params_hash());
        over(&[self.id.0.as_bytes(), &sequence.to_be_bytes(), &content.0])
    }

    /// The content hash of the run's start, of the state right behind that.
    #[must_use]
    pub fn start_content(&self) -> ContentHash {
        self.content_at(1, Some(self.params_hash()))
    }
}
