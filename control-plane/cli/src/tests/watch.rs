//! Watches over broken connections, and what becomes of refusals.

use std::collections::HashMap;
use std::time::Duration;

use contracts::v1::{EventKind, Run, RunStatus};
use futures::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::fake::{Fake, Item, Part, dead_url, locked};
use super::orchestrator;
use crate::connection::{Client, Connection};
use crate::error::Error;
use crate::exit::Exit;
use crate::watch::{RECONNECT_TIME_MAX, Seen, watch};

fn client(url: &str) -> Client {
    Client::new(Connection::Url(url.to_owned())).unwrap()
}

fn status(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let details = ErrorDetails::with_error_info(reason, "orchestrator.v1", metadata);
    Status::with_error_details(code, "no", details)
}

#[tokio::test]
async fn a_watch_that_does_not_come_back_is_given_up() {
    let client = client(&dead_url().await);
    let patience = Duration::from_millis(50);
    let mut seen = std::pin::pin!(watch(client, "run-1".into(), 0, patience));
    let error = loop {
        match seen.next().await.unwrap() {
            Ok(Seen::Broken) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.exit(), Exit::Unavailable);
    assert!(matches!(error, Error::WatchLost { .. }), "{error:?}");
    assert!(error.message().starts_with("cannot reach http://127.0.0.1:"), "{error:?}");
    assert!(seen.next().await.is_none());
}

#[tokio::test]
async fn a_watch_behind_retention_begins_where_the_journal_does() {
    let run = Run { run_id: "run-1".into(), status: RunStatus::Success.into(), ..Run::default() };
    let gone = status(Code::OutOfRange, "SEQUENCE_GONE", &[("earliest_sequence", "8")]);
    let part = |items| Part { items, when_cancelled: None };
    let fake = Fake::with_run(run.clone(), Vec::new()).parts(vec![
        part(vec![Err(gone)]),
        part(vec![Ok(Item::event(8, "", EventKind::RunAdopted)), Ok(Item::ended(&run))]),
    ]);
    let server = fake.serve().await;
    let seen = watch(client(&server.url), "run-1".into(), 0, RECONNECT_TIME_MAX);
    let seen: Vec<Seen> = seen.map(Result::unwrap).collect().await;
    assert!(matches!(&seen[..], [Seen::Broken, Seen::Event(_), Seen::Ended(_)]), "{seen:?}");
    assert_eq!(locked(&server.seen.watches), [0, 7]);
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again_and_then_told_of() {
    let mut details = ErrorDetails::with_error_info("OVERLOADED", "orchestrator.v1", []);
    details.set_retry_info(Some(Duration::from_millis(5)));
    let busy = Status::with_error_details(Code::ResourceExhausted, "busy", details);
    let registered = Some(contracts::v1::Workflow::default());
    let fake = Fake { registered, start_error: Some(busy), ..Fake::new() };
    let server = fake.serve().await;
    let outcome = orchestrator(&server.url, &["workflows", "execute", "deploy"]).await;
    assert_eq!(outcome.exit, Exit::Unavailable);
    let expected = "error: busy\n  reason: OVERLOADED\n  \
        help: the server is busy; try again later\n  help: try again in 5ms\n";
    assert_eq!(outcome.stderr, expected);
    let starts = locked(&server.seen.starts);
    assert_eq!(starts.len(), 9);
    assert!(starts.iter().all(|start| start.request_id == starts[0].request_id));
}

#[tokio::test]
async fn a_server_that_says_that_it_stops_is_asked_again_and_not_called_unreachable() {
    let stopping = status(Code::Unavailable, "UNAVAILABLE", &[("remedy", "try again")]);
    let registered = Some(contracts::v1::Workflow::default());
    let fake = Fake { registered, start_error: Some(stopping), ..Fake::new() };
    let server = fake.serve().await;
    let outcome = orchestrator(&server.url, &["workflows", "execute", "deploy"]).await;
    assert_eq!(outcome.exit, Exit::Unavailable);
    assert_eq!(outcome.stderr, "error: no\n  reason: UNAVAILABLE\n  help: try again\n");
    assert_eq!(locked(&server.seen.starts).len(), 3);
}

#[test]
fn what_is_refused_decides_the_exit() {
    for (status, exit) in [
        (status(Code::InvalidArgument, "INVALID_FIELD", &[]), Exit::BadRequest),
        (status(Code::NotFound, "RUN_NOT_FOUND", &[]), Exit::BadRequest),
        (status(Code::AlreadyExists, "WORKFLOW_EXISTS", &[]), Exit::BadRequest),
        (status(Code::FailedPrecondition, "RUN_ENDED", &[]), Exit::BadRequest),
        (status(Code::ResourceExhausted, "LIMIT_EXCEEDED", &[]), Exit::BadRequest),
        (status(Code::Unavailable, "UNAVAILABLE", &[]), Exit::Unavailable),
        (status(Code::Internal, "INTERNAL", &[]), Exit::Unavailable),
        (Status::deadline_exceeded("late"), Exit::Unavailable),
    ] {
        let code = status.code();
        assert_eq!(Error::refused(status).exit(), exit, "{code:?}");
    }
}
