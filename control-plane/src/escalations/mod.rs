//! Questions to people, as resources: a step that asks, an undo that failed for good, an issue that
//! nobody takes or that a recovery did not mend.
//!
//! A question and its answer are one document (`Kind::Escalation`); who has taken it up, comments
//! and reminders are another one (`Kind::EscalationHandling`), so that what a run writes about its
//! own questions never meets what people write. Nothing here knows gRPC.

pub mod handling;
pub mod issues;
pub mod keeper;

pub use handling::Handling;
pub use keeper::{Keeper, Policy};

use engine::event::RequestMark;
use engine::{Instant, RunId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::DocumentRow;

use crate::documents::Kind;

/// What a question is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// A step of a run waits for a decision.
    #[default]
    Step,
    /// An undo of a run's rollback failed for good.
    Undo,
    /// A triage found nobody for an issue.
    Issue,
    /// A recovery did not mend an issue.
    Recovery,
}

/// What may be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The step goes on; the issue goes to whom the question proposes.
    Approve,
    /// The step fails.
    Reject,
    /// As approving, with something changed: what the step gives, the params of the issue.
    Amend,
    /// Another agent takes the issue.
    Reroute,
    /// The undo is tried again.
    Retry,
    /// A person did it by hand.
    Done,
    /// It is left as it is, with a reason.
    Skip,
}

impl std::fmt::Display for Choice {
    /// As it is written in requests, in lower case.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Amend => "amend",
            Self::Reroute => "reroute",
            Self::Retry => "retry",
            Self::Done => "done",
            Self::Skip => "skip",
        })
    }
}

/// Where a question stands. The numbers are in the database: they are never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nobody has decided yet.
    Open = 1,
    /// Somebody has decided.
    Decided = 2,
    /// Nobody needs to decide any more.
    Withdrawn = 3,
}

impl Status {
    /// The number in the store.
    #[must_use]
    pub fn number(self) -> i16 {
        self as i16
    }

    /// The status of a number in the store.
    #[must_use]
    pub fn of(number: i16) -> Option<Self> {
        [Self::Open, Self::Decided, Self::Withdrawn].into_iter().find(|it| it.number() == number)
    }
}

/// Who may take an issue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proposal {
    /// The agent type.
    pub agent: String,
    /// The action.
    pub action: String,
    /// What the action is given: a JSON object, or null.
    pub params: Value,
    /// How sure the triage is, 0 to 1.
    pub confidence: f64,
}

/// How a question was settled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settled {
    /// When.
    pub at: Instant,
    /// What was decided; `None`: it was withdrawn.
    pub choice: Option<Choice>,
    /// Who decided.
    pub by: String,
    /// What was said to it, or why it was withdrawn.
    pub comment: String,
    /// Who got the issue, or what was amended.
    pub outcome: Option<Proposal>,
    /// The request that decided.
    pub request: Option<RequestMark>,
}

/// A question, as it is stored. Fields are added with defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Escalation {
    /// What it is about.
    pub topic: Topic,
    /// The question, in a line.
    pub question: String,
    /// What there is to know about it.
    pub detail: String,
    /// The run that asks, or that did not mend the issue.
    pub run: Option<RunId>,
    /// The path of the step.
    pub step: String,
    /// The triage.
    pub triage: String,
    /// The issue's id within it.
    pub issue: String,
    /// The recovery plan.
    pub plan: String,
    /// The issue's severity: `low`, `medium`, `high`, `critical`; empty where there is none.
    pub severity: String,
    /// What may be decided.
    pub choices: Vec<Choice>,
    /// Whom the triage would have taken.
    pub proposal: Option<Proposal>,
    /// When the step gives up waiting.
    pub until: Option<Instant>,
    /// How it was settled.
    pub settled: Option<Settled>,
}

impl Escalation {
    /// A step that asks.
    #[must_use]
    pub fn of_step(run: RunId, step: &str, question: &str, until: Option<Instant>) -> Self {
        Self {
            topic: Topic::Step,
            question: question.to_owned(),
            run: Some(run),
            step: step.to_owned(),
            choices: vec![Choice::Approve, Choice::Reject, Choice::Amend],
            until,
            ..Self::default()
        }
    }

    /// An undo that failed for good; `error` says why.
    #[must_use]
    pub fn of_undo(run: RunId, step: &str, error: &str) -> Self {
        Self {
            topic: Topic::Undo,
            question: format!("what `{step}` did could not be undone: what is to be done?"),
            detail: error.to_owned(),
            run: Some(run),
            step: step.to_owned(),
            choices: vec![Choice::Retry, Choice::Done, Choice::Skip],
            ..Self::default()
        }
    }

    /// From the body of its document.
    ///
    /// # Errors
    /// When the body is not one of an escalation.
    pub fn read(row: &DocumentRow) -> Result<Self, store::Error> {
        crate::triages::body(row)
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.settled {
            None => Status::Open,
            Some(Settled { choice: Some(_), .. }) => Status::Decided,
            Some(_) => Status::Withdrawn,
        }
    }

    /// What it belongs to and goes with: its run, else its plan, else its triage.
    #[must_use]
    pub fn parent(&self) -> Option<String> {
        let run = self.run.filter(|_| matches!(self.topic, Topic::Step | Topic::Undo));
        let others = [&self.plan, &self.triage].into_iter().find(|id| !id.is_empty());
        run.map(|run| run.to_string()).or_else(|| others.cloned())
    }

    /// Its document. An open one is due at once, for somebody has to be told.
    ///
    /// # Errors
    /// Never, as far as bodies are JSON.
    pub fn row(
        &self,
        id: String,
        tenant: String,
        created: Instant,
        version: i64,
    ) -> Result<DocumentRow, serde_json::Error> {
        let settled_at = self.settled.as_ref().map(|settled| settled.at);
        Ok(DocumentRow {
            kind: Kind::Escalation.number(),
            id,
            tenant,
            parent: self.parent(),
            status: self.status().number(),
            created_at: created.0,
            updated_at: settled_at.unwrap_or(created).0,
            due_at: settled_at.is_none().then_some(created.0),
            version,
            body: serde_json::to_vec(self)?,
        })
    }
}

/// The id of what a run asks: the run and the sequence of the event that asks.
#[must_use]
pub fn id_of_run(run: RunId, sequence: i64) -> String {
    format!("{run}-{sequence}")
}

/// The version of a question of a run as of this sequence of its journal. There is room between two
/// of them for the reminders that are noted meanwhile, so that what the run writes always counts.
#[must_use]
pub fn version_of_run(sequence: u32) -> i64 {
    i64::from(sequence) << 24
}

/// The id of a question about an issue: the triage or the plan, and the issue's place in it from 1.
#[must_use]
pub fn id_of_issue(of: &str, place: usize) -> String {
    format!("{of}-{place}")
}

/// The chain of the audit log that is about an escalation.
#[must_use]
pub fn resource(id: &str) -> String {
    format!("escalation/{id}")
}
