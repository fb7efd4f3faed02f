//! The parser of definitions on any bytes: it complains within the file, or gives a graph that a
//! run can be started with.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::definition::{Severity, check_params, compile, schedule};
use engine::event::{Origin, RunStarted};
use engine::graph::Graph;
use engine::{Command, Instant, RunId, State};
use serde_json::Value;

/// Compiles the bytes. Gives whether they are a definition.
pub(crate) fn definition(bytes: &[u8]) -> bool {
    match compile("fuzz.yml", bytes) {
        Ok((graph, warnings)) => {
            assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning));
            if let Some(schedule) = &graph.schedule {
                let schedule = schedule::Timer::of(schedule).expect("a checked schedule");
                let now = Instant(1_700_000_000_000_000);
                assert!(schedule.next(now).is_none_or(|next| next > now));
            }
            begin(graph);
            true
        }
        Err(complaints) => {
            assert!(complaints.iter().any(|complaint| complaint.severity == Severity::Error));
            assert!(complaints.is_sorted_by_key(|complaint| (complaint.line, complaint.column)));
            let text = String::from_utf8_lossy(bytes);
            let lines = text.split(['\n', '\r']).count();
            for complaint in &complaints {
                assert!(complaint.line >= 1 && complaint.column >= 1, "{complaint}");
                assert!(complaint.line as usize <= lines, "{complaint}");
                assert!(!complaint.message.is_empty());
            }
            false
        }
    }
}

/// Starts a run where the defaults of the params are enough for one.
fn begin(graph: Graph) {
    let graph = Arc::new(graph);
    let Ok(params) = check_params(&graph, None) else { return };
    let now = Instant(1_700_000_000_000_000);
    let started = RunStarted {
        workflow: graph.name.to_string(),
        version: graph.version.clone(),
        hash: graph.hash.to_string(),
        params: Value::Object(params).to_string().into(),
        tenant: String::new(),
        origin: Origin::default(),
        labels: BTreeMap::new(),
        priority: graph.priority,
        parent: None,
        epoch: 1,
        siblings: BTreeMap::new(),
    };
    let id = RunId::at_instant(now, "fuzz");
    let begun = engine::start(id, Arc::clone(&graph), started.clone(), now);
    let (mut state, mut transition) = begun.expect("params are JSON");
    let mut folded = State::new(id, graph, started, now).expect("params are JSON");
    for event in &transition.events[1..] {
        folded.apply(event, now);
    }
    // A large definition may take several decisions to begin.
    for _ in 0..3 {
        if !transition.more {
            break;
        }
        transition = engine::decide(&mut state, Command::Tick, now).expect("a tick is accepted");
        transition.events.iter().for_each(|event| folded.apply(event, now));
    }
    assert_eq!(folded.steps(), state.steps(), "the journal tells all");
}
