//! What the journal says of time: how long a step took from the decision that it is ready to the
//! decision that it has succeeded. Between the two lie one commit, dispatch, the agent, and the
//! way back.

use std::collections::HashMap;

use anyhow::Context as _;
use contracts::v1::orchestrator_service_client::OrchestratorServiceClient;
use contracts::v1::{self, EventKind, JournalEvent, ListRunJournalRequest};
use tonic::transport::Channel;

/// How many runs are looked at; each is read from the store.
const RUNS_MAX: usize = 200;

/// The journal of one run.
pub(crate) async fn read(
    client: &mut OrchestratorServiceClient<Channel>,
    run_id: &str,
) -> anyhow::Result<Vec<JournalEvent>> {
    let mut events = Vec::new();
    let mut page_token = String::new();
    loop {
        let run_id = run_id.to_owned();
        let request = ListRunJournalRequest { run_id, page_size: 1000, page_token };
        let page = client.list_run_journal(request).await?.into_inner();
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(events);
        }
    }
}

/// The transitions of steps of some of the runs, in microseconds.
pub(crate) async fn transitions(
    client: &mut OrchestratorServiceClient<Channel>,
    run_ids: &[String],
) -> anyhow::Result<Vec<u64>> {
    let every = run_ids.len().div_ceil(RUNS_MAX).max(1);
    let mut micros = Vec::new();
    for run_id in run_ids.iter().step_by(every) {
        micros.extend(of_run(&read(client, run_id).await?)?);
    }
    Ok(micros)
}

/// When an event was decided, in microseconds since the epoch.
pub(crate) fn micros(event: &JournalEvent) -> Option<i64> {
    let time = event.time.as_ref()?;
    Some(time.seconds * 1_000_000 + i64::from(time.nanos) / 1000)
}

/// For how long an agent had the task that this event tells the result of, in microseconds.
pub(crate) fn took(event: &JournalEvent) -> Option<i64> {
    let Some(v1::payload::Data::Json(body)) = &event.body.as_ref()?.data else { return None };
    serde_json::from_str::<serde_json::Value>(body).ok()?.get("took")?.as_i64()
}

fn of_run(events: &[JournalEvent]) -> anyhow::Result<Vec<u64>> {
    let mut ready: HashMap<&str, i64> = HashMap::new();
    let mut micros = Vec::new();
    for event in events {
        let at = self::micros(event).context("an event has a time")?;
        match event.kind() {
            EventKind::StepQueued => drop(ready.insert(&event.step, at)),
            EventKind::StepSucceeded => {
                // Blocks succeed too, and were never queued.
                let Some(since) = ready.remove(event.step.as_str()) else { continue };
                micros.push(u64::try_from(at - since).unwrap_or(0));
            }
            _ => {}
        }
    }
    Ok(micros)
}

/// Whether a run's journal has no gap and no step back in time, begins with its start, ends with
/// its end, and has the success of so many tasks once each.
pub(crate) fn check(events: &[JournalEvent], steps: u32) -> Result<(), String> {
    let mut before = None;
    for (place, event) in (1..).zip(events) {
        if event.sequence != place {
            return Err(format!("event {} stands at place {place}", event.sequence));
        }
        let time = event.time.as_ref().map(|time| (time.seconds, time.nanos));
        if time < before {
            return Err(format!("event {place} is older than the one before"));
        }
        before = time;
    }
    let ends = (events.first().map(JournalEvent::kind), events.last().map(JournalEvent::kind));
    if ends != (Some(EventKind::RunStarted), Some(EventKind::RunEnded)) {
        return Err(format!("it begins and ends with {ends:?}"));
    }
    // Blocks succeed too, and are never queued.
    let mut done: HashMap<&str, u32> = HashMap::new();
    for event in events {
        match event.kind() {
            EventKind::StepQueued => drop(done.entry(&event.step).or_default()),
            EventKind::StepSucceeded => {
                done.entry(&event.step).and_modify(|count| *count += 1);
            }
            _ => {}
        }
    }
    if let Some((step, count)) = done.iter().find(|(_, count)| **count != 1) {
        return Err(format!("step {step} succeeded {count} times"));
    }
    if done.len() != steps as usize {
        return Err(format!("{} steps succeeded, not {steps}", done.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: i64, kind: EventKind, step: &str, micros: i32) -> JournalEvent {
        JournalEvent {
            sequence,
            kind: kind.into(),
            step: step.to_owned(),
            time: Some(prost_types::Timestamp { seconds: 1, nanos: micros * 1000 }),
            ..Default::default()
        }
    }

    fn journal() -> Vec<JournalEvent> {
        vec![
            event(1, EventKind::RunStarted, "", 0),
            event(2, EventKind::StepQueued, "a", 0),
            event(3, EventKind::StepSucceeded, "a", 250),
            event(4, EventKind::StepQueued, "b", 250),
            event(5, EventKind::StepSucceeded, "b", 650),
            event(6, EventKind::RunEnded, "", 650),
        ]
    }

    #[test]
    fn transitions_are_from_ready_to_succeeded() {
        assert_eq!(of_run(&journal()).unwrap(), [250, 400]);
    }

    #[test]
    fn how_long_an_agent_had_a_task_is_in_the_body() {
        let body = |text: &str| {
            let data = Some(v1::payload::Data::Json(text.to_owned()));
            let body = Some(v1::Payload { data, ..Default::default() });
            JournalEvent { body, ..event(1, EventKind::StepSucceeded, "a", 0) }
        };
        assert_eq!(took(&body(r#"{"n":0,"output":{},"took":2087}"#)), Some(2087));
        assert_eq!(took(&body(r#"{"n":0}"#)), None);
        assert_eq!(took(&journal()[0]), None);
    }

    #[test]
    fn a_whole_journal_passes_the_check() {
        assert_eq!(check(&journal(), 2), Ok(()));
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_found() {
        let broken = |change: fn(&mut Vec<JournalEvent>), part: &str| {
            let mut events = journal();
            change(&mut events);
            let problem = check(&events, 2).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        };
        broken(|events| drop(events.remove(2)), "stands at place");
        broken(|events| drop(events.pop()), "begins and ends");
        broken(|events| events[4].step = "a".to_owned(), "succeeded");
        broken(|events| events[2].kind = EventKind::StepFailed.into(), "succeeded 0 times");
        broken(|events| events[3].time = Some(prost_types::Timestamp::default()), "older");
        assert!(check(&journal(), 3).unwrap_err().contains("2 steps succeeded, not 3"));
    }
}
