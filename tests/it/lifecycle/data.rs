//! What is carried: large outputs, large integers, the order of keys.

use contracts::v1::{self, RunStatus};

use super::{World, on_both_stores};
use crate::support::client::{json, request, text};

on_both_stores!(
    a_megabyte_goes_through_two_steps,
    digits_and_the_order_of_keys_are_kept,
    what_is_too_large_is_refused,
);

async fn a_megabyte_goes_through_two_steps(world: &World) {
    let client = &world.client;
    let yaml = "name: large\nparams: {data: {type: string}}\nsteps:\n  \
                - {id: a, agent: echo, action: echo, params: {data: '${{ params.data }}'}}\n  \
                - {id: b, agent: echo, action: echo, params: {again: '${{ a.data }}'}}\n\
                outputs: {size: b.again.size()}\n";
    let data = "0123456789abcdef".repeat(64 * 1024);
    let params = json(&format!("{{\"data\":\"{data}\"}}"));
    let run = client.try_start(v1::StartRunRequest { params, ..request(yaml) }).await.unwrap();
    let (_, run) = client.events(&run.run_id, 0).await;
    assert_eq!(run.status(), RunStatus::Success, "{}", run.error);
    assert_eq!(text(run.outputs.as_ref()), "{\"size\":1048576}");
    let steps = client.steps(&run.run_id).await;
    let again = text(steps[1].output.as_ref());
    assert!(again == format!("{{\"again\":\"{data}\"}}"), "{} bytes", again.len());
    let full = client.full(&run.run_id).await.result.unwrap();
    assert_eq!(full.steps, steps);
}

async fn digits_and_the_order_of_keys_are_kept(world: &World) {
    let client = &world.client;
    let given = r#"{"z":18446744073709551615,"a":-9223372036854775808,"m":{"y":1,"b":[9007199254740993,2]},"e":1.5}"#;
    let yaml = "name: exact\nparams: {p: {type: object}}\nsteps:\n  \
                - {id: a, agent: echo, action: echo, params: '${{ params.p }}'}\n  \
                - {id: b, agent: echo, action: echo, params: {whole: '${{ a.output }}', \
                z: '${{ a.z }}', text: 'is ${{ a.m }}'}}\noutputs: {b: b.output}\n";
    let params = json(&format!("{{\"p\":{given}}}"));
    let run = client.try_start(v1::StartRunRequest { params, ..request(yaml) }).await.unwrap();
    let run = client.ends_well(&run.run_id).await;
    let steps = client.steps(&run.run_id).await;
    assert_eq!(text(steps[0].output.as_ref()), given);
    let inner = r#"{\"y\":1,\"b\":[9007199254740993,2]}"#;
    let b = format!(r#"{{"whole":{given},"z":18446744073709551615,"text":"is {inner}"}}"#);
    assert_eq!(text(steps[1].output.as_ref()), b);
    assert_eq!(text(run.outputs.as_ref()), format!("{{\"b\":{b}}}"));
    assert_eq!(text(run.params.as_ref()), format!("{{\"p\":{given}}}"));
}

async fn what_is_too_large_is_refused(world: &World) {
    let client = &world.client;
    let yaml = "name: l\nparams: {d: {}}\nsteps:\n  - {id: a, agent: echo, action: echo}\n";
    let params = json(&format!("{{\"d\":\"{}\"}}", "x".repeat(4 * 1024 * 1024)));
    let start = v1::StartRunRequest { params, ..request(yaml) };
    let status = client.try_start(start).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{}", status.message());
    let id = client.start("name: l\nsteps:\n  - {id: w, wait_for: go}\n").await;
    let large = format!("\"{}\"", "x".repeat(4 * 1024 * 1024));
    let status = client.signal(&id, "go", &large).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{}", status.message());
    client.cancel(&id).await.unwrap();
}
