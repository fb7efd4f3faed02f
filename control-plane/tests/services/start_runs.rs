//! Many runs over one stream, and their ends on the same.

use std::collections::BTreeMap;

use contracts::v1::{
    self, RunStatus, RunToStart, StartRunsRequest, start_runs_request, start_runs_response::Item,
    start_runs_setup::Source,
};
use control_plane::testing::TestServer;
use tonic::Code;

use crate::support::{DEADLINE, definition, echo, json, run, server, started};

const DOUBLE: &str = "
name: double
params:
  n: {type: integer}
steps:
  - {id: a, agent: echo, action: echo, params: {value: '${{ params.n * 2 }}'}}
outputs: {twice: a.value}
";

const WAITS: &str = "
name: waits
steps:
  - {id: go, wait_for: {signal: go}}
";

fn setup(yaml: &str) -> StartRunsRequest {
    let setup = v1::StartRunsSetup {
        source: Some(Source::Definition(definition(yaml))),
        labels: [("batch".to_owned(), "7".to_owned())].into(),
        priority: Some(3),
        await_end: true,
        ..Default::default()
    };
    StartRunsRequest { item: Some(start_runs_request::Item::Setup(setup)) }
}

fn to_start(tag: i64, params: &str, request_id: &str) -> StartRunsRequest {
    let data = Some(v1::payload::Data::Json(params.to_owned()));
    let params = Some(v1::Payload { data, media_type: String::new() });
    let run = RunToStart { tag, params, request_id: request_id.to_owned() };
    StartRunsRequest { item: Some(start_runs_request::Item::Run(run)) }
}

/// All answers, in order, of a stream whose client has said all.
async fn answers(server: &TestServer, frames: Vec<StartRunsRequest>) -> Vec<(i64, Item)> {
    let frames = tokio_stream::iter(frames);
    let mut stream = server.orchestrator().start_runs(frames).await.unwrap().into_inner();
    let mut answers = Vec::new();
    let all = async {
        while let Some(answer) = stream.message().await.unwrap() {
            answers.push((answer.tag, answer.item.unwrap()));
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap();
    answers
}

fn ends(answers: &[(i64, Item)]) -> BTreeMap<i64, v1::Run> {
    let end = |(tag, item): &(i64, Item)| match item {
        Item::Ended(ended) => Some((*tag, ended.run.clone().unwrap())),
        _ => None,
    };
    answers.iter().filter_map(end).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_run_is_started_and_its_end_told() {
    let server = server().await;
    let _echo = echo(&server).await;
    let runs = (0..200).map(|tag| to_start(tag, &format!("{{\"n\": {tag}}}"), ""));
    let answers = answers(&server, std::iter::once(setup(DOUBLE)).chain(runs).collect()).await;
    let ends = ends(&answers);
    assert_eq!(ends.len(), 200);
    for (tag, end) in &ends {
        assert_eq!(end.status(), RunStatus::Success, "{end:?}");
        assert_eq!(json(end.outputs.as_ref()), format!("{{\"twice\":{}}}", tag * 2));
        assert_eq!((end.priority, end.labels["batch"].as_str()), (3, "7"));
    }
    for tag in 0..200 {
        let of_it: Vec<&Item> =
            answers.iter().filter(|(other, _)| *other == tag).map(|(_, item)| item).collect();
        let [Item::Started(started), Item::Ended(_)] = of_it[..] else { panic!("{of_it:?}") };
        assert_eq!(started.run_id, ends[&tag].run_id);
    }
    let told = &ends[&7];
    let read = run(&server, &told.run_id, v1::RunView::Basic).await;
    assert_eq!(*told, v1::Run { params: None, ..read }, "the end is told as the store has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_refused_leaves_the_others_alone() {
    let server = server().await;
    let _echo = echo(&server).await;
    let frames = vec![
        setup(DOUBLE),
        to_start(1, "{\"n\": \"text\"}", ""),
        to_start(2, "{\"n\": 2}", ""),
        to_start(3, "{\"n\": 3}", &"x".repeat(200)),
    ];
    let answers = answers(&server, frames).await;
    assert_eq!(ends(&answers).into_keys().collect::<Vec<_>>(), [2]);
    for refused in [1, 3] {
        let item = answers.iter().find(|(tag, _)| *tag == refused).map(|(_, item)| item).unwrap();
        let Item::Refused(status) = item else { panic!("{item:?}") };
        assert_eq!(Code::from(status.code), Code::InvalidArgument);
        assert!(!status.message.is_empty() && !status.details.is_empty(), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_is_the_same_run_and_its_end_is_told_again() {
    let server = server().await;
    let _echo = echo(&server).await;
    let frames = || vec![setup(DOUBLE), to_start(1, "{\"n\": 4}", "same")];
    let (first, again) = (answers(&server, frames()).await, answers(&server, frames()).await);
    let (first, again) = (&ends(&first)[&1], &ends(&again)[&1]);
    assert_eq!(first.run_id, again.run_id);
    assert_eq!(json(again.outputs.as_ref()), "{\"twice\":8}");
    let other = vec![setup(DOUBLE), to_start(1, "{\"n\": 5}", "same")];
    let other = answers(&server, other).await;
    let [(1, Item::Refused(status))] = &other[..] else { panic!("{other:?}") };
    assert_eq!(Code::from(status.code), Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_joins_a_run_under_way_is_told_its_end() {
    let server = server().await;
    let (frames, requests) = tokio::sync::mpsc::channel(4);
    frames.send(setup(WAITS)).await.unwrap();
    frames.send(to_start(1, "{}", "joined")).await.unwrap();
    frames.send(to_start(2, "{}", "joined")).await.unwrap();
    drop(frames);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut stream = server.orchestrator().start_runs(requests).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let all = async {
        while let Some(answer) = stream.message().await.unwrap() {
            let item = answer.item.unwrap();
            if let (Item::Started(started), 2) = (&item, seen.len() + 1) {
                let request = v1::SignalRunRequest {
                    run_id: started.run_id.clone(),
                    signal: "go".to_owned(),
                    ..Default::default()
                };
                server.orchestrator().signal_run(request).await.unwrap();
            }
            seen.push((answer.tag, item));
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap();
    let ends = ends(&seen);
    assert_eq!(ends.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(ends[&1].run_id, ends[&2].run_id, "one run under two tags");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_setup_or_with_a_wrong_one_is_refused() {
    let server = server().await;
    let refused = async |frames: Vec<StartRunsRequest>| {
        let frames = tokio_stream::iter(frames);
        server.orchestrator().start_runs(frames).await.unwrap_err()
    };
    let status = refused(vec![to_start(1, "{}", "")]).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("setup"), "{}", status.message());
    let status = refused(vec![setup("name: x\nsteps: 5\n")]).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let unknown = Source::Workflow("nothing".to_owned());
    let item = v1::StartRunsSetup { source: Some(unknown), ..Default::default() };
    let item = Some(start_runs_request::Item::Setup(item));
    assert_eq!(refused(vec![StartRunsRequest { item }]).await.code(), Code::NotFound);
    // The port still serves.
    started(&server, crate::support::start(WAITS)).await;
}
