//! What kinds of documents there are. A kind's number is in the database: it is never changed.

use engine::RunId;

/// A kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Issues that were triaged together.
    Triage = 1,
    /// What was learned from confirmed outcomes.
    TriageModel = 2,
    /// A recovery plan.
    Plan = 3,
    /// A checkpoint of a run.
    Checkpoint = 4,
    /// A rollback of a run.
    Rollback = 5,
    /// A question to a person.
    Escalation = 6,
    /// A confirmed outcome of a triage.
    Outcome = 7,
    /// What an agent type declares.
    AgentDeclaration = 8,
    /// Who has taken up a question to a person, comments and reminders; its id is the question's.
    EscalationHandling = 9,
    /// How agents did with the issues of a recovery plan; its id is the plan's.
    PlanOutcome = 10,
}

impl Kind {
    /// The number in the store.
    #[must_use]
    pub fn number(self) -> i16 {
        self as i16
    }
}

/// The chain of the audit log that is about a run.
#[must_use]
pub fn run_resource(run: RunId) -> String {
    format!("run/{run}")
}
