//! What runs show of themselves: watches, journals, steps, results, lists, pages, filters.

use contracts::v1::{self, EventKind, RunStatus, watch_run_response::Item};

use super::{World, on_both_stores};
use crate::support::DEADLINE;
use crate::support::client::{by_name, fields, json, reason, text};

on_both_stores!(
    a_watch_goes_on_exactly_where_it_was_left,
    journal_steps_and_result_tell_the_same,
    lists_are_read_by_pages_and_wrong_tokens_are_refused,
    lists_are_filtered_and_wrong_filters_are_refused,
);

const CHAIN: &str = "name: chain\nsteps:\n  - {id: a, agent: echo, action: echo, params: {n: 1}}\n  \
                     - {id: gate, wait_for: go}\n  \
                     - {id: b, agent: echo, action: echo, params: {n: '${{ a.n + 1 }}'}}\n\
                     outputs: {n: b.n}\n";

async fn a_watch_goes_on_exactly_where_it_was_left(world: &World) {
    let client = &world.client;
    let id = client.start(CHAIN).await;
    let waiting = client.event(&id, EventKind::StepWaiting, "gate").await;
    let mut ahead = client.watch(&id, waiting.sequence).await;
    client.signal(&id, "go", "1").await.unwrap();
    let next = tokio::time::timeout(DEADLINE, ahead.message()).await.unwrap().unwrap().unwrap();
    let Some(Item::Event(event)) = next.item else { panic!("{next:?}") };
    assert_eq!((event.sequence, event.kind()), (waiting.sequence + 1, EventKind::SignalReceived));
    let (all, run) = client.events(&id, 0).await;
    assert_eq!((run.status(), text(run.outputs.as_ref())), (RunStatus::Success, r#"{"n":2}"#));
    let last = i64::try_from(all.len()).unwrap();
    assert_eq!(run.version_sequence, last);
    for after in 0..=last {
        let (rest, again) = client.events(&id, after).await;
        assert_eq!(rest, all[usize::try_from(after).unwrap()..]);
        assert_eq!(again.status(), RunStatus::Success);
    }
    let beyond = client.watch(&id, last + 10).await.message().await.unwrap().unwrap();
    assert!(matches!(beyond.item, Some(Item::Ended(_))), "{beyond:?}");
    let wrong = v1::WatchRunRequest { run_id: id.clone(), after_sequence: -1 };
    let status = client.runs.clone().watch_run(wrong).await.unwrap_err();
    assert_eq!(
        (reason(&status), fields(&status)),
        ("INVALID_FIELD".into(), vec!["after_sequence".into()])
    );
}

async fn journal_steps_and_result_tell_the_same(world: &World) {
    let client = &world.client;
    let id = client.start(CHAIN).await;
    client.signal(&id, "go", "{\"x\":1}").await.unwrap();
    let (events, run) = client.events(&id, 0).await;
    let (mut journal, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListRunJournalRequest { run_id: id.clone(), page_size: 2, page_token };
        let page = client.runs.clone().list_run_journal(request).await.unwrap().into_inner();
        assert!(page.events.len() <= 2);
        journal.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(journal, events);
    assert!(journal.windows(2).all(|two| {
        let nanos = |event: &v1::JournalEvent| event.time.unwrap().as_nanos_for_tests();
        nanos(&two[0]) <= nanos(&two[1])
    }));
    assert!(journal.iter().all(|event| event.run_id == id && event.body.is_some()));
    let full = client.full(&id).await;
    let result = full.result.unwrap();
    assert_eq!(result.steps, client.steps(&id).await);
    assert_eq!((result.status.as_str(), &result.workflow_id), ("success", &id));
    assert_eq!(result.metrics.as_ref().unwrap().total_steps, 3);
    assert_eq!(result.metrics, run.metrics);
    assert_eq!(text(result.outputs.as_ref()), r#"{"n":2}"#);
    assert!(result.duration.is_some() && result.end_time.is_some());
    let told: Vec<(&str, &str)> =
        result.steps.iter().map(|step| (step.step_id.as_str(), step.status.as_str())).collect();
    assert_eq!(told, [("a", "success"), ("gate", "success"), ("b", "success")]);
    assert_eq!((result.steps[0].attempts, result.steps[0].agent.as_str()), (1, "echo"));
    assert!(!result.steps[0].agent_instance.is_empty());
    assert_eq!(client.run(&id).await.result, None, "the basic view has no steps");
}

trait Nanos {
    fn as_nanos_for_tests(&self) -> i128;
}

impl Nanos for prost_types::Timestamp {
    fn as_nanos_for_tests(&self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }
}

/// Registers a workflow of this name that ends at once, and runs it so many times.
async fn runs_of(world: &World, name: &str, count: usize) -> Vec<String> {
    let client = &world.client;
    let yaml = format!(
        "name: {name}\nparams: {{bad: {{default: false}}}}\nsteps:\n  \
         - {{id: e, condition: params.bad, agent: echo, action: fail}}\n"
    );
    client.register(&yaml).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..count {
        let run = client.try_start(by_name(name)).await.unwrap();
        client.ends_well(&run.run_id).await;
        ids.push(run.run_id);
    }
    ids
}

async fn lists_are_read_by_pages_and_wrong_tokens_are_refused(world: &World) {
    let client = &world.client;
    let mut ids = runs_of(world, "paged", 5).await;
    ids.reverse();
    let page = async |filter: &str, page_size: i32, page_token: &str| {
        let request = v1::ListRunsRequest {
            page_size,
            page_token: page_token.to_owned(),
            filter: filter.to_owned(),
            ..Default::default()
        };
        client.runs.clone().list_runs(request).await.map(tonic::Response::into_inner)
    };
    let (mut seen, mut token, mut first) = (Vec::new(), String::new(), String::new());
    loop {
        let answer = page("workflow=paged", 2, &token).await.unwrap();
        seen.extend(answer.runs.into_iter().map(|run| run.run_id));
        token = answer.next_page_token;
        if first.is_empty() {
            first.clone_from(&token);
        }
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ids, "the newest first, none missed, none twice");
    for wrong in ["x", "AAAA", &format!("{first}A"), &first[1..]] {
        let status = page("workflow=paged", 2, wrong).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_PAGE_TOKEN", "{wrong}");
    }
    let other = page("workflow=other", 2, &first).await.unwrap_err();
    assert_eq!(reason(&other), "INVALID_PAGE_TOKEN", "a token is good for its own filter");
    let steps =
        v1::ListStepsRequest { run_id: ids[0].clone(), page_token: first, ..Default::default() };
    let status = client.runs.clone().list_steps(steps).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_PAGE_TOKEN", "a token is good for its own method");
    assert_eq!(reason(&page("", -1, "").await.unwrap_err()), "INVALID_FIELD");
    assert!(page("workflow=paged", 100_000, "").await.unwrap().runs.len() == 5);
}

async fn lists_are_filtered_and_wrong_filters_are_refused(world: &World) {
    let client = &world.client;
    let well = runs_of(world, "filtered", 2).await;
    let failed = v1::StartRunRequest { params: json(r#"{"bad":true}"#), ..by_name("filtered") };
    let failed = client.try_start(failed).await.unwrap().run_id;
    client.ended(&failed).await;
    let ids = async |filter: &str| -> Vec<String> {
        client.list(filter).await.into_iter().map(|run| run.run_id).collect()
    };
    assert_eq!(ids("workflow=filtered AND status=success").await, well);
    assert_eq!(ids("workflow=filtered AND status=failure").await, std::slice::from_ref(&failed));
    assert_eq!(ids("status=failure AND workflow=filtered").await, std::slice::from_ref(&failed));
    assert_eq!(ids("workflow=filtered AND status=cancelled").await, Vec::<String>::new());
    let listed = client.list("workflow=filtered AND status=failure").await.remove(0);
    let one = client.run(&failed).await;
    assert_eq!((&listed.error, &listed.failed_step), (&one.error, &one.failed_step));
    assert_eq!(listed.metrics, one.metrics, "a list shows the same as the run itself");
    for (filter, order_by) in [
        ("name=x", ""),
        ("status=done", ""),
        ("workflow", ""),
        ("", "name"),
        ("parent_run_id=1", ""),
    ] {
        let request = v1::ListRunsRequest {
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            ..Default::default()
        };
        let status = client.runs.clone().list_runs(request).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_FILTER", "{filter} {order_by}");
    }
}
