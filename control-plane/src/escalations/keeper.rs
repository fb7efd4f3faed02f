//! Calls people: tells of each question once it is open, and again whenever its time has passed
//! without an answer, when it also takes it back from who had taken it up.
//!
//! What was told is written before it is told, so that two replicas never tell the same thing; a
//! process that dies between the two leaves it to the next reminder.

use std::sync::Arc;
use std::time::Duration;

use engine::Instant;
use serde_json::json;
use store::{Changed, DocumentRow, DocumentWrite, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::handling::Handling;
use super::{Escalation, resource};
use crate::audit::{self, Entry};
use crate::clock::Clock;
use crate::documents::Kind;
use crate::limits;
use crate::replicas::Replicas;
use crate::runs::Notifier;

/// Who reminds.
const ACTOR: &str = "orchestrator";

/// How people are called.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long a question may be open before people are reminded, again and again.
    pub due: Duration,
    /// The channels that are told.
    pub channels: Vec<String>,
}

/// Calls people.
pub struct Keeper {
    /// Where the questions are.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The replicas, of which one looks after what all have asked.
    pub replicas: Replicas,
    /// Where people are told.
    pub notifier: Notifier,
    /// How.
    pub policy: Policy,
    /// Rung when this replica has opened a question.
    pub asked: Arc<Notify>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Calls people until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            let was_asked = tokio::select! {
                () = self.asked.notified() => true,
                () = tokio::time::sleep(limits::ESCALATIONS_LOOK_EVERY) => false,
                () = shutdown.cancelled() => return,
            };
            let called = tokio::select! {
                called = self.look(was_asked) => called,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = called {
                tracing::warn!(%error, "people could not be called");
            }
        }
    }

    /// Looks for what is due, unless another replica does.
    async fn look(&self, was_asked: bool) -> Result<(), store::Error> {
        if was_asked || audit::seals::is_ours(&*self.store, &self.replicas).await? {
            call(&*self.store, &self.notifier, &self.policy, self.clock.now()).await?;
        }
        Ok(())
    }
}

/// Calls people to all questions that are due `now`; gives how many.
///
/// # Errors
/// When the store does not answer.
pub async fn call(
    store: &dyn Store,
    notifier: &Notifier,
    policy: &Policy,
    now: Instant,
) -> Result<usize, store::Error> {
    let mut called = 0;
    for _ in 0..limits::ESCALATION_PAGES_AT_ONCE {
        let limit = limits::ESCALATIONS_CALLED_AT_ONCE;
        let due = store.due_documents(Kind::Escalation.number(), now.0, limit).await?;
        let is_last = due.len() < limit as usize;
        let mut messages = Vec::new();
        for row in due {
            messages.extend(note(store, policy, row, now).await?);
        }
        called += messages.len();
        for message in told(messages) {
            tracing::info!("{message}");
            if let Err(why) = notifier.send(&policy.channels, &message).await {
                tracing::warn!(%why, "a call for people was not taken");
            }
        }
        if is_last {
            break;
        }
    }
    Ok(called)
}

/// Notes that people are told of one question, and gives what they are told; nothing when another
/// replica tells them, or it was settled meanwhile.
async fn note(
    store: &dyn Store,
    policy: &Policy,
    row: DocumentRow,
    now: Instant,
) -> Result<Option<String>, store::Error> {
    let question = Escalation::read(&row)?;
    let (mut handling, version) = Handling::of(store, &row.id).await?;
    handling.reminders = handling.reminders.saturating_add(1);
    let mut entries = Vec::new();
    // Who has just taken it up has as long as everybody has.
    if handling.claimed_at.is_some_and(|at| at.after(policy.due) <= now) {
        let body = json!({"assignee": handling.assignee, "reminders": handling.reminders});
        let (resource, actor) = (resource(&row.id), ACTOR.to_owned());
        entries.push(Entry { resource, actor, action: "escalation.release", body });
        handling.claim(String::new(), now);
    }
    let mut asked = DocumentWrite { expected_version: row.version, row: row.clone() };
    asked.row.version += 1;
    asked.row.due_at = Some(now.after(policy.due).0);
    let noted = handling.write(&row, version, now);
    let noted = noted.map_err(|error| store::Error::Corrupt(error.to_string()))?;
    match audit::change(store, vec![asked, noted], &entries, None, now).await? {
        Changed::Done => {}
        Changed::Conflict | Changed::DuplicateRequest(_) => return Ok(None),
    }
    Ok(Some(message(&row.id, &question, handling.reminders)))
}

/// What is told at once: each by itself, or, where there are many, the first and how many more.
fn told(messages: Vec<String>) -> Vec<String> {
    let more = messages.len().saturating_sub(limits::ESCALATIONS_TOLD_EACH);
    if more == 0 {
        return messages;
    }
    let first = messages[..limits::ESCALATIONS_TOLD_EACH].join("\n");
    vec![format!("{first}\nand {more} more: orchestrator escalations list")]
}

/// What people are told.
fn message(id: &str, question: &Escalation, reminders: u32) -> String {
    let again = match reminders {
        0 | 1 => String::new(),
        times => format!(" (told {times} times)"),
    };
    let about = match (&question.run, question.issue.as_str()) {
        (_, issue) if !issue.is_empty() => format!("issue {issue}: "),
        (Some(run), _) => format!("run {run}, step {}: ", question.step),
        (None, _) => String::new(),
    };
    format!(
        "a person is needed{again}: {about}{}; orchestrator escalations show {id}",
        question.question
    )
}

#[cfg(test)]
mod tests {
    use engine::RunId;
    use store::testing::memory::Memory;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn question() -> Escalation {
        Escalation::of_step(RunId::at_instant(Instant(0), "x"), "gate", "Deploy?", None)
    }

    #[test]
    fn people_are_told_what_it_is_about_and_where_to_look() {
        let question = question();
        let told = message("e-1", &question, 1);
        let expected = format!(
            "a person is needed: run {}, step gate: Deploy?; orchestrator escalations show e-1",
            question.run.unwrap()
        );
        assert_eq!(told, expected);
        assert!(message("e-1", &question, 3).starts_with("a person is needed (told 3 times): "));
    }

    #[test]
    fn of_many_the_first_are_told_and_how_many_more() {
        let some = |count: usize| (0..count).map(|it| it.to_string()).collect::<Vec<_>>();
        let few = some(limits::ESCALATIONS_TOLD_EACH);
        assert_eq!(told(few.clone()), few);
        let many = told(some(limits::ESCALATIONS_TOLD_EACH + 7));
        assert_eq!(many.len(), 1);
        assert!(many[0].starts_with("0\n1\n"), "{}", many[0]);
        assert!(many[0].ends_with("\nand 7 more: orchestrator escalations list"), "{}", many[0]);
    }

    #[tokio::test]
    async fn people_are_called_at_once_and_reminded_until_it_is_settled() {
        let store = Memory::new().open();
        let notifier = Notifier::new([].into()).unwrap();
        let policy = Policy { due: Duration::from_secs(60), channels: vec!["none".to_owned()] };
        let call = async |seconds: i64| {
            call(&*store, &notifier, &policy, Instant(seconds * SECOND)).await.unwrap()
        };
        let mut asked = question();
        let row = |asked: &Escalation, version| {
            let (id, tenant) = ("e-1".to_owned(), "default".to_owned());
            asked.row(id, tenant, Instant(SECOND), version).unwrap()
        };
        let write = DocumentWrite { row: row(&asked, 1 << 20), expected_version: 0 };
        audit::change(&*store, vec![write], &[], None, Instant(0)).await.unwrap();
        assert_eq!((call(0).await, call(1).await, call(2).await), (0, 1, 0));
        // One who has taken it up keeps it for as long as it may be open.
        let (mut handling, version) = Handling::of(&*store, "e-1").await.unwrap();
        handling.claim("ann".to_owned(), Instant(30 * SECOND));
        let claimed = handling.write(&row(&asked, 1), version, Instant(30 * SECOND)).unwrap();
        audit::change(&*store, vec![claimed], &[], None, Instant(0)).await.unwrap();
        assert_eq!((call(60).await, call(61).await), (0, 1));
        let (handling, _) = Handling::of(&*store, "e-1").await.unwrap();
        assert_eq!((handling.assignee.as_str(), handling.reminders), ("ann", 2));
        assert_eq!(call(121).await, 1);
        let (handling, _) = Handling::of(&*store, "e-1").await.unwrap();
        assert_eq!((handling.assignee.as_str(), handling.reminders), ("", 3));
        let released = store.audit_chain("escalation/e-1", 0, 9).await.unwrap();
        assert_eq!(released[0].action, "escalation.release");
        // What its run writes of it is newer than what was noted here.
        asked.settled = Some(super::super::Settled::default());
        let stored = store.document(Kind::Escalation.number(), "e-1").await.unwrap().unwrap();
        assert!(stored.version < 2 << 20, "{}", stored.version);
        let row = row(&asked, 2 << 20);
        let write = DocumentWrite { row, expected_version: stored.version };
        audit::change(&*store, vec![write], &[], None, Instant(0)).await.unwrap();
        assert_eq!(call(1_000).await, 0);
    }
}
