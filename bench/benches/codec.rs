//! What goes over wires and into rows: journal events to and from JSON, events to the contracts,
//! frames of agents to and from protobuf. One core.
#![expect(clippy::unwrap_used, reason = "a measurement of what is known to work")]

use std::hint::black_box;

use contracts::v1;
use control_plane::service::convert;
use criterion::{Criterion, criterion_group, criterion_main};
use engine::{Event, Instant, RunId};
use prost::Message as _;
use store::JournalRow;

/// The success of a step with a small output, as the journal keeps it.
const SUCCEEDED: &[u8] = br#"{"n":3,"step":"s3","output":{"artifact":"target/app.tar.gz",
    "bytes":1048576,"warnings":[]},"by":{"type":"bench","instance":"host-1-a7"},"undo":"nothing"}"#;

/// The number of that kind of event in the journal.
const STEP_SUCCEEDED: i16 = v1::EventKind::StepSucceeded as i16;

fn journal(c: &mut Criterion) {
    let event = Event::decode(STEP_SUCCEEDED, SUCCEEDED).unwrap();
    c.bench_function("event/encode", |b| b.iter(|| black_box(&event).encode().unwrap()));
    c.bench_function("event/decode", |b| {
        b.iter(|| Event::decode(STEP_SUCCEEDED, black_box(SUCCEEDED)).unwrap());
    });
    let now = Instant(1_700_000_000_000_000);
    let run = RunId::at_instant(now, "bench");
    let row =
        JournalRow { seq: 4, at: now.0, kind: STEP_SUCCEEDED, schema: 1, body: SUCCEEDED.into() };
    c.bench_function("event/to the contracts", |b| {
        b.iter(|| convert::journal_event(run, black_box(&row)));
    });
    c.bench_function("event/to the contracts and bytes", |b| {
        b.iter(|| convert::journal_event(run, black_box(&row)).encode_to_vec());
    });
}

fn frames(c: &mut Criterion) {
    let payload = |text: &str| v1::Payload {
        data: Some(v1::payload::Data::Json(text.to_owned())),
        media_type: String::new(),
    };
    let task = |n: u32| v1::Task {
        r#ref: Some(v1::TaskRef {
            task_id: format!("018bcfe5-6800-7000-8000-{n:012}:3:d"),
            lease_token: "1700000000000000.7".to_owned(),
        }),
        action: "noop".to_owned(),
        run_id: format!("018bcfe5-6800-7000-8000-{n:012}"),
        step: "s3".to_owned(),
        attempt: 1,
        input: Some(payload("{}")),
        idempotency_key: format!("018bcfe5-6800-7000-8000-{n:012}/s3"),
        ..Default::default()
    };
    let assign = v1::Assign { tasks: (0..32).map(task).collect() };
    let frame = v1::connect_response::Frame::Assign(assign);
    let response = v1::ConnectResponse { frame: Some(frame) };
    let bytes = response.encode_to_vec();
    c.bench_function("assign of 32/encode", |b| b.iter(|| black_box(&response).encode_to_vec()));
    c.bench_function("assign of 32/decode", |b| {
        b.iter(|| v1::ConnectResponse::decode(black_box(bytes.as_slice())).unwrap());
    });
    let result = |n: u32| v1::TaskResult {
        task: Some(v1::TaskRef {
            task_id: format!("018bcfe5-6800-7000-8000-{n:012}:3:d"),
            lease_token: "1700000000000000.7".to_owned(),
        }),
        outcome: Some(v1::task_result::Outcome::Success(v1::TaskSuccess {
            output: Some(payload("{}")),
            confidence: None,
        })),
        usage: None,
    };
    let results = v1::Results { results: (0..32).map(result).collect() };
    let frame = v1::connect_request::Frame::Results(results);
    let request = v1::ConnectRequest { frame: Some(frame) };
    let bytes = request.encode_to_vec();
    c.bench_function("results of 32/encode", |b| b.iter(|| black_box(&request).encode_to_vec()));
    c.bench_function("results of 32/decode", |b| {
        b.iter(|| v1::ConnectRequest::decode(black_box(bytes.as_slice())).unwrap());
    });
}

criterion_group!(benches, journal, frames);
criterion_main!(benches);
