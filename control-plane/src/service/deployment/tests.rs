//! What is found, and how grave it is.

use store::{OwnerId, ReplicaRow};

use super::*;

const LEASE: Duration = Duration::from_secs(4);
const NOW: Instant = Instant(1_700_000_000_000_000);

fn secs(count: i64) -> Instant {
    Instant(NOW.0 + count * 1_000_000)
}

fn waiting(is_missing: bool) -> WaitingTasks {
    let (cause, remedy) = ("no agent `x`".to_owned(), "start it".to_owned());
    WaitingTasks { count: 3, since: secs(-90), is_missing, cause, remedy }
}

fn standing(status: ReplicaStatus, runs: u64, age: Option<u64>, seen: i64) -> Standing {
    let row = ReplicaRow {
        id: OwnerId(uuid::Uuid::from_u128(1)),
        epoch: 1,
        address: "10.0.0.1:8000".to_owned(),
        version: "1".to_owned(),
        kinds: 1,
        lease: 1,
        status,
        started_at: 0,
        seen_at: secs(seen).0,
    };
    Standing { row, runs, lease_age: age.map(Duration::from_secs), is_self: false }
}

#[test]
fn clocks_may_differ_by_what_the_question_took_and_no_more() {
    let at = |there| database_clock(there, NOW, secs(2));
    assert_eq!(at(secs(1)).status(), Well);
    assert_eq!(at(secs(-9)).found, "this server's clock is 9.0s ahead of the database's");
    assert_eq!(at(secs(12)).found, "this server's clock is 10.0s behind the database's");
    assert_eq!(at(secs(12)).status(), Warning);
}

#[test]
fn replicas_that_are_silent_gone_or_of_another_time_are_named() {
    let found = |standing| replicas(&[standing], LEASE, NOW);
    let well = found(standing(ReplicaStatus::Serving, 5, Some(1), -2));
    assert_eq!((well.status(), well.found.as_str()), (Well, "1 live, the lease is 4.0s"));
    let silent = found(standing(ReplicaStatus::Serving, 5, Some(9), -9));
    assert!(silent.found.ends_with("10.0.0.1:8000 was not heard of for 9.0s"), "{silent:?}");
    let other = found(standing(ReplicaStatus::Serving, 5, Some(1), 60));
    assert!(other.found.ends_with("the clock of 10.0.0.1:8000 is 1m 01s apart"), "{other:?}");
    let gone = found(standing(ReplicaStatus::Fenced, 5, None, -60));
    assert!(gone.found.contains("the 5 runs of 10.0.0.1:8000"), "{gone:?}");
    assert_eq!(found(standing(ReplicaStatus::Fenced, 0, None, -60)).status(), Well);
    assert_eq!([silent.status(), other.status(), gone.status()], [Warning; 3]);
}

#[test]
fn what_limits_is_the_longest_queue_then_agents_without_room() {
    let idle = queues(Backlog::default(), &[waiting(true)], NOW);
    assert_eq!((idle.status(), idle.found.as_str()), (Well, "nothing waits in the server"));
    let busy = queues(Backlog::default(), &[waiting(true), waiting(false)], NOW);
    assert_eq!(busy.found, "agents limit: 3 tasks wait, for 1m 30s: no agent `x`");
    let backlog = Backlog {
        commits: 900,
        commit_wait: Duration::from_millis(300),
        command_wait: Duration::from_millis(60),
        ..Backlog::default()
    };
    let limited = queues(backlog, &[], NOW);
    assert_eq!(limited.status(), Warning);
    assert_eq!(limited.found, "900 transitions wait, each for 300ms or longer");
    assert!(limited.remedy.starts_with("the database limits"), "{limited:?}");
}

#[test]
fn bounds_warn_before_they_are_reached() {
    let bound = |used| Bound { name: "tasks", what: "tasks", used, max: 200, remedy: "add" };
    let found = |used| bounds(&[bound(0), bound(used)]);
    assert_eq!(found(100).status(), Well);
    assert_eq!(found(170).status(), Warning);
    let reached = found(200);
    assert_eq!(reached.status(), Failure);
    assert_eq!(reached.found, "new runs are refused: 200 of at most 200 tasks (`tasks`)");
}

#[test]
fn schema_runs_agents_and_disk_say_what_is_wrong() {
    assert_eq!(schema(store::SCHEMA_KNOWN).status(), Well);
    assert_eq!(schema(store::SCHEMA_KNOWN + 1).status(), Warning);
    assert_eq!(schema(store::SCHEMA_KNOWN - 1).status(), Failure);
    let stuck = RunId::at_instant(NOW, "x");
    assert_eq!(runs(3, &[]).found, "3 in memory, none is stuck");
    let found = runs(3, &[stuck]);
    assert_eq!(found.status(), Failure);
    assert!(found.remedy.contains(&stuck.to_string()), "{found:?}");
    let counts = Counts { queued: 3, running: 1, agents: 2 };
    assert_eq!(agents(counts, &[waiting(false)], NOW).status(), Well);
    let missing = agents(counts, &[waiting(true)], NOW);
    assert_eq!((missing.status(), missing.remedy.as_str()), (Warning, "start it"));
    assert_eq!(disk(limits::DISK_FREE_WARN).status(), Well);
    assert_eq!(disk(limits::DISK_FREE_MIN).status(), Warning);
    assert_eq!(disk(limits::DISK_FREE_MIN - 1).status(), Failure);
}

#[test]
fn people_are_warned_of_questions_that_are_overdue() {
    let due = Duration::from_secs(60);
    assert_eq!(people(&[], due, NOW).found, "nobody is asked");
    let some = people(&[secs(-50), secs(-1)], due, NOW);
    assert_eq!((some.status(), some.remedy.as_str()), (Well, ""));
    let late = people(&[secs(-90), secs(-60), secs(-1)], due, NOW);
    assert_eq!(late.status(), Warning);
    assert_eq!(late.found, "3 escalations are open, the oldest for 1m 30s; 2 of them are overdue");
    let many = people(&vec![secs(-1); limits::ESCALATIONS_COUNTED], due, NOW);
    assert!(many.found.starts_with("at least 1000 escalations"), "{}", many.found);
}
