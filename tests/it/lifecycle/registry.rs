//! Registered workflows, sub-workflows, schedules.

use std::collections::BTreeSet;

use contracts::v1::{self, EventKind, RunStatus, start_run_request::Source};
use tonic::Code;

use super::{World, on_both_stores};
use crate::support::client::{by_name, json, reason, request, text};
use crate::support::until;

on_both_stores!(
    a_workflow_is_registered_replaced_and_read,
    the_version_registered_last_is_the_one_that_runs,
    sub_workflows_are_registered_or_stand_beside,
    a_sub_workflow_that_fails_fails_its_step,
    a_cancel_goes_down_to_sub_workflows,
    a_schedule_starts_one_run_for_each_instant,
);

fn version(name: &str, version: &str, n: u32) -> String {
    format!(
        "name: {name}\nversion: '{version}'\nsteps:\n  \
         - {{id: a, agent: echo, action: echo, params: {{n: {n}}}}}\noutputs: {{n: a.n}}\n"
    )
}

async fn a_workflow_is_registered_replaced_and_read(world: &World) {
    let client = &world.client;
    let (first, second) = (version("kept", "1", 1), version("kept", "1", 2));
    let one = client.register(&first).await.unwrap();
    assert_eq!(client.register(&first).await.unwrap().hash, one.hash, "the same content again");
    let status = client.register(&second).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "WORKFLOW_EXISTS"));
    let replace = |etag: &str| v1::RegisterWorkflowRequest {
        replace: true,
        etag: etag.to_owned(),
        ..Default::default()
    };
    let status = client.register_as(replace(&"0".repeat(64)), &second).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let two = client.register_as(replace(&one.hash), &second).await.unwrap();
    assert_ne!(two.hash, one.hash);
    let status = client.register_as(replace(&one.hash), &first).await.unwrap_err();
    assert_eq!(reason(&status), "ETAG_MISMATCH", "an etag is good once");
    client.register_as(replace(""), &first).await.unwrap();
    let get = v1::GetWorkflowRequest { name: "kept".into(), version: "1".into() };
    let got = client.runs.clone().get_workflow(get).await.unwrap().into_inner().workflow.unwrap();
    assert_eq!((got.definition.as_str(), &got.hash), (first.as_str(), &one.hash));
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let list = v1::ListWorkflowsRequest { page_size: 2, page_token };
        let page = client.runs.clone().list_workflows(list).await.unwrap().into_inner();
        assert!(page.workflows.iter().all(|workflow| workflow.definition.is_empty()));
        seen.extend(page.workflows.into_iter().map(|it| (it.name, it.version)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(seen.contains(&("kept".to_owned(), "1".to_owned())), "{seen:?}");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
    let wrong = v1::ListWorkflowsRequest { page_token: "x".into(), ..Default::default() };
    let status = client.runs.clone().list_workflows(wrong).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_PAGE_TOKEN");
}

async fn the_version_registered_last_is_the_one_that_runs(world: &World) {
    let client = &world.client;
    for (name, n) in [("2.0", 2), ("10.0", 10), ("1.5", 15)] {
        client.register(&version("versions", name, n)).await.unwrap();
    }
    for (name, outputs) in
        [("versions", "{\"n\":15}"), ("versions@2.0", "{\"n\":2}"), ("versions@10.0", "{\"n\":10}")]
    {
        let run = client.try_start(by_name(name)).await.unwrap();
        let run = client.ends_well(&run.run_id).await;
        assert_eq!(text(run.outputs.as_ref()), outputs, "{name}");
    }
    let run = client.try_start(by_name("versions@2.0")).await.unwrap();
    let replace = v1::RegisterWorkflowRequest { replace: true, ..Default::default() };
    client.register_as(replace, &version("versions", "2.0", 22)).await.unwrap();
    let run = client.ends_well(&run.run_id).await;
    assert_eq!(text(run.outputs.as_ref()), "{\"n\":2}", "a run is pinned to its definition");
}

const PARENT: &str = "name: parent\nsteps:\n  \
    - {id: sub, workflow: NAME, params: {n: 20}}\n  \
    - {id: b, agent: echo, action: echo, params: {n: '${{ sub.n + 1 }}'}}\noutputs: {n: b.n}\n";
const CHILD: &str = "name: NAME\nparams: {n: {type: integer, default: 1}}\nsteps:\n  \
    - {id: a, agent: echo, action: echo, params: {n: '${{ params.n * 2 }}'}}\noutputs: {n: a.n}\n";

async fn sub_workflows_are_registered_or_stand_beside(world: &World) {
    let client = &world.client;
    client.register(&CHILD.replace("NAME", "reg-child")).await.unwrap();
    let id = client.start(&PARENT.replace("NAME", "reg-child")).await;
    let run = client.ends_well(&id).await;
    assert_eq!(text(run.outputs.as_ref()), "{\"n\":41}");
    let children = client.list(&format!("parent_run_id={id}")).await;
    assert_eq!(children.len(), 1);
    assert_eq!((children[0].workflow.as_str(), &children[0].parent_run_id), ("reg-child", &id));
    assert_eq!(children[0].status(), RunStatus::Success);

    let beside = |child: &str| {
        let siblings = [("beside".to_owned(), child.to_owned())].into_iter().collect();
        let yaml = PARENT.replace("NAME", "beside");
        let definition = v1::Definition { yaml, file: "p.yml".into(), siblings };
        let source = Some(Source::Definition(definition));
        v1::StartRunRequest { source, ..Default::default() }
    };
    let run = client.try_start(beside(&CHILD.replace("NAME", "beside"))).await.unwrap();
    let run = client.ends_well(&run.run_id).await;
    assert_eq!(text(run.outputs.as_ref()), "{\"n\":41}");
    let status = client.try_start(beside("name: beside\nsteps: []\n")).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_DEFINITION");
    assert!(status.message().contains("beside"), "{status:?}");
    let status = client.try_start(request(&PARENT.replace("NAME", "nobody"))).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_DEFINITION");
    assert!(status.message().contains("nobody"), "{status:?}");
}

async fn a_sub_workflow_that_fails_fails_its_step(world: &World) {
    let client = &world.client;
    let child = "name: bad-child\nsteps:\n  \
                 - {id: f, agent: echo, action: fail, params: {message: boom}}\n";
    client.register(child).await.unwrap();
    let id = client.start("name: p\nsteps:\n  - {id: sub, workflow: bad-child}\n").await;
    let run = client.ended(&id).await;
    assert_eq!((run.status(), run.failed_step.as_str()), (RunStatus::Failure, "sub"));
    assert!(run.error.contains("boom"), "{}", run.error);
    let held = "name: p\nsteps:\n  - {id: sub, workflow: bad-child, continue_on_error: true}\n  \
                - {id: z, agent: echo, action: echo, params: {ok: '${{ sub.success }}'}}\n";
    let id = client.start(held).await;
    client.ends_well(&id).await;
    let z = client.step(&id, "z").await.unwrap();
    assert_eq!(text(z.output.as_ref()), "{\"ok\":false}");
}

async fn a_cancel_goes_down_to_sub_workflows(world: &World) {
    let client = &world.client;
    client.register("name: slow-child\nsteps:\n  - {id: w, wait_for: never}\n").await.unwrap();
    let id = client.start("name: p\nsteps:\n  - {id: sub, workflow: slow-child}\n").await;
    let filter = format!("parent_run_id={id}");
    until("the child runs", async || !client.list(&filter).await.is_empty()).await;
    let child = client.list(&filter).await.remove(0).run_id;
    client.event(&child, EventKind::StepWaiting, "w").await;
    client.cancel(&id).await.unwrap();
    assert_eq!(client.ended(&id).await.status(), RunStatus::Cancelled);
    assert_eq!(client.ended(&child).await.status(), RunStatus::Cancelled);
}

async fn a_schedule_starts_one_run_for_each_instant(world: &World) {
    let client = &world.client;
    let yaml = "name: ticking\nschedule: {cron: '* * * * * *', overlap: allow}\nsteps:\n  \
                - {id: a, agent: echo, action: echo, params: {n: 1}}\n";
    let registered = client.register(yaml).await.unwrap();
    assert!(registered.next_fire_time.is_some(), "{registered:?}");
    until("three instants have fired", async || client.list("workflow=ticking").await.len() >= 3)
        .await;
    let replace = v1::RegisterWorkflowRequest { replace: true, ..Default::default() };
    let off = yaml.replace("schedule: {cron: '* * * * * *', overlap: allow}\n", "");
    let still = client.register_as(replace, &off).await.unwrap();
    assert_eq!((still.schedule.as_str(), still.next_fire_time), ("", None));
    let runs = client.list("workflow=ticking").await;
    for run in &runs {
        assert_eq!(client.ended(&run.run_id).await.status(), RunStatus::Success);
    }
    // The first 48 bits of an id are the milliseconds of its instant: whole seconds, each once.
    let instants: Vec<u64> = runs
        .iter()
        .map(|run| u64::from_str_radix(&run.run_id.replace('-', "")[..12], 16).unwrap())
        .collect();
    assert!(instants.iter().all(|instant| instant % 1000 == 0), "{instants:?}");
    assert!(instants.windows(2).all(|two| two[1] == two[0] + 1000), "{instants:?}");
    let wrong = yaml.replace("* * * * * *", "every second");
    let status = client.register(&wrong).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_DEFINITION");
    let params = v1::StartRunRequest { params: json("{}"), ..by_name("ticking") };
    client.ends_well(&client.try_start(params).await.unwrap().run_id).await;
}
