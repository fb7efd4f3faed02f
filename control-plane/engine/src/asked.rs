//! What a run asks of people, and what of a run is over that others may have written down: part of
//! what a journal folds to. Who stores it is none of the engine's business.

use std::sync::Arc;

use crate::event::{Event, Origin, RequestMark, UndoDecision, WaitingFor};
use crate::id::{InstanceId, Instant};
use crate::rollback::{CheckpointMark, RollbackSummary};
use crate::state::State;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Whether a step may go on.
    Decision,
    /// What is to be done about an undo that failed for good.
    Undo,
}

/// A question to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub asks: Asks,
    /// The step's path.
    pub step: Arc<str>,
    /// The question of the step; of an undo why it failed.
    pub text: String,
    /// When the step gives up waiting.
    pub until: Option<Instant>,
    /// The sequence of the event that asks.
    pub sequence: u32,
    /// When that was.
    pub at: Instant,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The step goes on, or fails.
    Step {
        /// It goes on.
        approved: bool,
        /// With something changed.
        amended: bool,
    },
    /// What is done about the undo.
    Undo(UndoDecision),
}

/// A question that is open no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The question.
    pub question: Question,
    /// The sequence of the event that settled it.
    pub sequence: u32,
    /// When that was.
    pub at: Instant,
    /// What was decided; `None`: nobody needs to decide any more.
    pub verdict: Option<Verdict>,
    /// Who decided.
    pub by: String,
    /// What was said to it, or why nobody needs to decide.
    pub comment: String,
    /// The request that decided.
    pub request: Option<RequestMark>,
}

/// What is over since the last look, and what it was at last. No part of the truth.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Questions.
    pub settled: Vec<Settled>,
    /// Rollbacks that the state knows no more.
    pub rollbacks: Vec<RollbackSummary>,
    /// Checkpoints that are none any more, and the sequence of the event by which.
    pub(crate) checkpoints: Vec<(CheckpointMark, u32, Instant)>,
}

impl Notes {
    /// Whether nothing is over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.rollbacks.is_empty() && self.checkpoints.is_empty()
    }
}

impl State {
    /// What is asked of people now, by step instance.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.values()
    }

    /// The question that an event asks, if that is open still.
    #[must_use]
    pub fn question(&self, n: InstanceId) -> Option<&Question> {
        self.questions.get(&n)
    }

    /// What is over since this was asked last.
    pub fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn ask(
        &mut self,
        n: InstanceId,
        asks: Asks,
        text: &str,
        until: Option<Instant>,
        at: Instant,
    ) {
        let (step, text, sequence) = (self.path(n), text.to_owned(), self.sequence());
        self.questions.insert(n, Question { asks, step, text, until, sequence, at });
    }

    /// Before an event is taken in: which questions it settles. To be called only while some are
    /// open, which is seldom.
    pub(crate) fn answer(&mut self, event: &Event, at: Instant) {
        match event {
            Event::DecisionMade { n, approved, comment, amendment, origin, .. } => {
                let verdict = Verdict::Step { approved: *approved, amended: amendment.is_some() };
                self.settle_question(*n, Some(verdict), origin, comment, at);
            }
            Event::UndoDecided { n, decision, comment, origin, .. } => {
                let verdict = Some(Verdict::Undo(*decision));
                self.settle_question(*n, verdict, origin, comment, at);
            }
            Event::StepFailed { n, error, .. } => self.withdraw(*n, &error.message, at),
            Event::StepCancelRequested { n, reason, .. } => self.withdraw(*n, reason, at),
            Event::StepCancelled { n, .. } => self.withdraw(*n, "the step was cancelled", at),
            Event::StepSkipped { n, .. } => self.withdraw(*n, "the step was skipped", at),
            Event::StepSucceeded { n, .. } => self.withdraw(*n, "the step went on", at),
            Event::UndoQueued { n, .. }
            | Event::ChildUndoRequested { n, .. }
            | Event::UndoSucceeded { n, .. } => self.withdraw(*n, "the undo went on", at),
            Event::RollbackEnded { .. } => self.withdraw_all("the rollback ended", at),
            Event::RunEnded { .. } => self.withdraw_all("the run ended", at),
            Event::RunReopened { .. } | Event::RunRetried { .. } => {
                self.withdraw_all("the run was taken up again", at);
            }
            _ => {}
        }
    }

    fn withdraw(&mut self, n: InstanceId, why: &str, at: Instant) {
        self.settle_question(n, None, &Origin::default(), why, at);
    }

    fn withdraw_all(&mut self, why: &str, at: Instant) {
        while let Some((&n, _)) = self.questions.first_key_value() {
            self.withdraw(n, why, at);
        }
    }

    fn settle_question(
        &mut self,
        n: InstanceId,
        verdict: Option<Verdict>,
        origin: &Origin,
        comment: &str,
        at: Instant,
    ) {
        let Some(question) = self.questions.remove(&n) else { return };
        self.notes.settled.push(Settled {
            question,
            sequence: self.sequence(),
            at,
            verdict,
            by: origin.actor.clone(),
            comment: comment.to_owned(),
            request: origin.request.clone(),
        });
    }

    /// A step begins to wait.
    pub(crate) fn ask_of(
        &mut self,
        n: InstanceId,
        waiting_for: &WaitingFor,
        until: Option<Instant>,
        at: Instant,
    ) {
        if let WaitingFor::Decision(text) = waiting_for {
            self.ask(n, Asks::Decision, text, until, at);
        }
    }
}
