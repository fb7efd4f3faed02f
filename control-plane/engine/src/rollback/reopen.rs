//! A run goes on from where it was rolled back to: what ended or began behind that point is set
//! back, as if it had not happened.

use std::sync::Arc;

use crate::asked::Notes;
use crate::decide::Decider;
use crate::event::{Ending, Event, Origin};
use crate::graph::Graph;
use crate::id::{InstanceId, Instant};
use crate::instance::{Detail, ScopeId, Status};
use crate::rejection::Rejection;
use crate::state::{Phase, State};
use crate::task::Json;

impl Decider<'_> {
    /// Takes a run up again that was rolled back.
    pub(crate) fn reopen(&mut self, params: Option<Json>, origin: Origin) -> Result<(), Rejection> {
        let Some(ended) = &self.state.ended else { return Err(Rejection::NotEnded) };
        if let Some(planned) = &self.state.planned {
            return Err(Rejection::RollbackOpen(planned.number));
        }
        let whole = self.state.rollback.as_ref().is_some_and(|rollback| rollback.complete);
        if ended.status != Ending::RolledBack || !whole {
            let message = "only a run that was wholly rolled back goes on from there; `retry` \
                           takes up one that failed, a fork begins anew from a checkpoint";
            return Err(Rejection::State(message.to_owned()));
        }
        if let Some(params) = &params {
            crate::decide::check_json(params)?;
        }
        self.emit(Event::RunReopened { params, origin });
        self.take_up_again();
        Ok(())
    }
}

impl State {
    /// Takes in that the run goes on from where it was rolled back to.
    pub(crate) fn apply_reopened(&mut self, params: Option<&Json>, at: Instant) {
        let target = self.rollback.as_ref().map_or(0, |rollback| rollback.target);
        self.replace_params(params);
        let params = self.params_hash();
        self.mix_content(&[b"reopened", &target.to_be_bytes(), &params.0]);
        self.drop_checkpoints(target, at);
        self.set_back(target);
        self.note_rollback();
        self.clear_end();
        self.recount();
    }

    /// Takes in that everything so far was taken over from another run.
    pub(crate) fn apply_forked(&mut self, sequence: u32, params: Option<&Json>) {
        self.replace_params(params);
        self.epoch = self.started.epoch;
        let params = self.params_hash();
        self.mix_content(&[b"forked", &sequence.to_be_bytes(), &params.0]);
        self.set_back(sequence);
        // What the other run asked and undid is told of the other run.
        self.questions.clear();
        self.notes = Notes::default();
        // What the other run did, it undoes itself.
        self.forked_at = self.sequence();
        self.checkpoints.clear();
        for instance in &mut self.instances {
            // Another run has other keys; what it did before it was forked is none of its own.
            if let Some(detail) = instance.detail.as_mut() {
                detail.generation = 0;
                detail.former_children.clear();
            }
        }
        self.clear_end();
        self.recount();
    }

    fn replace_params(&mut self, params: Option<&Json>) {
        let Some(params) = params else { return };
        if let Ok(value) = serde_json::from_str(params) {
            self.params = Arc::new(value);
            Arc::make_mut(&mut self.started).params = Arc::clone(params);
        }
    }

    /// What stood at the end is over.
    fn clear_end(&mut self) {
        let blocked = self.graph.concurrency.is_some() || self.graph.rate_limit.is_some();
        self.phase = if blocked { Phase::Blocked } else { Phase::Running };
        self.keys.clear();
        self.paused = false;
        self.stopping = false;
        self.handler_stopping = false;
        self.cancel = None;
        self.failure = None;
        self.rollback = None;
        self.planned = None;
        self.ended = None;
        self.timers.clear();
        self.touched.clear();
        self.work.clear();
        if let Some(handler) = self.handler.take() {
            self.scopes[handler.index()].dead = true;
        }
    }

    /// Sets back everything that ended behind `target`, and all that is not settled.
    fn set_back(&mut self, target: u32) {
        // Scopes are opened in order: those above come first.
        for index in 0..self.scopes.len() {
            let scope = &self.scopes[index];
            let above = scope.parent.map(|parent| {
                let parent = &self.instances[parent.index()];
                self.scopes[parent.scope.index()].dead
            });
            if scope.opened > target || above == Some(true) {
                let is_root = index == 0;
                self.scopes[index].dead |= !is_root;
            }
        }
        for index in 0..self.instances.len() {
            let dead = self.scopes[self.instances[index].scope.index()].dead;
            let instance = &self.instances[index];
            if !dead && (instance.ended > target || !instance.status.is_settled()) {
                self.set_instance_back(index, target);
            }
        }
        let stands = |n: &InstanceId| {
            let instance = &self.instances[n.index()];
            instance.status == Status::Success && !self.scopes[instance.scope.index()].dead
        };
        let kept: Vec<InstanceId> = self.completions.iter().copied().filter(stands).collect();
        self.completions = kept;
    }

    fn set_instance_back(&mut self, index: usize, target: u32) {
        let dead: Vec<ScopeId> = self.instances[index].detail().map_or_else(Vec::new, |detail| {
            let is_dead = |scope: &&ScopeId| self.scopes[scope.index()].dead;
            detail.scopes.iter().filter(is_dead).copied().collect()
        });
        let instance = &mut self.instances[index];
        let stays_open = instance.begun > 0
            && instance.begun <= target
            && instance.detail().is_some_and(|d| !d.scopes.is_empty() || d.repeat.is_some());
        let detail = instance.detail.take().map(|detail| *detail).unwrap_or_default();
        instance.output = None;
        (instance.by, instance.undo) = (None, None);
        instance.ended = 0;
        instance.attempts_before = instance.attempt;
        instance.fallback = 0;
        // The agent keeps a mark that what was done under the old key is undone for good.
        let generation = detail.generation + u32::from(instance.attempt > 0);
        if stays_open {
            let mut scopes = detail.scopes;
            scopes.retain(|scope| !dead.contains(scope));
            let mut repeat = detail.repeat;
            if let Some(repeat) = repeat.as_mut() {
                repeat.begun = u32::try_from(scopes.len()).unwrap_or(u32::MAX);
            }
            instance.status = Status::Open;
            instance.detail = Some(Box::new(Detail {
                scopes,
                repeat,
                otherwise: detail.otherwise,
                keys: detail.keys,
                generation,
                ..Detail::default()
            }));
        } else {
            instance.status = Status::Pending;
            instance.begun = 0;
            let kept = Detail { generation, ..Detail::default() };
            instance.detail = (generation > 0).then(|| Box::new(kept));
        }
    }
}

/// The root scope is never set back as a whole.
const _: () = assert!(Graph::ROOT.0 == 0);
