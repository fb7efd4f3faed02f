//! What the audit log says of a run: an entry for each decision of a person, in the run's own
//! commit. Where the run's chain has come to is read when the first entry is to be written.

use engine::event::Origin;
use engine::{Command, Event, Instant, RunId};
use serde_json::{Value, json};
use store::AuditRow;

use super::slot::{Ask, Envelope, Phase};
use super::write_path::{Found, Loaded, WritePath};
use crate::audit::{Entry, Head, said};
use crate::documents::run_resource;
use crate::limits;

/// Whether somebody, and no part of the system, has asked.
fn is_person(origin: &Origin) -> bool {
    let actor = origin.actor.as_str();
    let parts = ["agent:", "schedule:", "run/"];
    !actor.is_empty() && actor != "parent" && parts.iter().all(|part| !actor.starts_with(part))
}

/// Whether this may lead to an entry.
pub(super) fn may_be_audited(envelope: &Envelope) -> bool {
    let Ask::Command(command) = &envelope.ask else { return false };
    Command::origin(command).is_some_and(is_person)
}

/// The entries of a transition whose first event follows `before`.
pub(super) fn rows(
    run: RunId,
    before: i64,
    events: &[Event],
    now: Instant,
    head: &mut Head,
) -> Vec<AuditRow> {
    let entry = |(seq, event): (i64, &Event)| {
        let (origin, action, mut body) = decision(event)?;
        if !is_person(origin) {
            return None;
        }
        body["sequence"] = json!(seq);
        if let Some(request) = &origin.request {
            body["request_id"] = json!(request.id);
        }
        Some(Entry { resource: run_resource(run), actor: origin.actor.clone(), action, body })
    };
    (before + 1..).zip(events).filter_map(entry).map(|entry| head.add(entry, now)).collect()
}

/// The entry of a run that was forked from another.
pub(super) fn fork(run: RunId, events: &[Event], now: Instant, head: &mut Head) -> Vec<AuditRow> {
    let of = events.iter().find_map(|event| match event {
        Event::RunForked { run, sequence, .. } => Some((*run, *sequence)),
        _ => None,
    });
    let (Some((from, sequence)), Some(Event::RunStarted(started))) = (of, events.first()) else {
        return Vec::new();
    };
    let body = json!({"from": from.to_string(), "behind": sequence});
    let actor = started.origin.actor.clone();
    let entry = Entry { resource: run_resource(run), actor, action: "run.fork", body };
    vec![head.add(entry, now)]
}

/// Who decided what, where an event is a decision.
fn decision(event: &Event) -> Option<(&Origin, &'static str, Value)> {
    Some(match event {
        Event::RunPaused { reason, origin } => {
            (origin, "run.pause", json!({"reason": said(reason)}))
        }
        Event::RunResumed { origin } => (origin, "run.resume", json!({})),
        Event::RunCancelRequested { reason, origin, .. } => {
            (origin, "run.cancel", json!({"reason": said(reason)}))
        }
        Event::RunRetried { origin } => (origin, "run.retry", json!({})),
        Event::RunReopened { origin, params } => {
            (origin, "run.reopen", json!({"other_params": params.is_some()}))
        }
        // What a signal carries may be secret.
        Event::SignalReceived { signal, payload, origin } => {
            let hash = engine::ContentHash::of(payload.as_bytes()).to_string();
            (origin, "run.signal", json!({"signal": said(signal), "payload_sha256": hash}))
        }
        Event::DecisionMade { step, approved, comment, amendment, origin, .. } => {
            let mut body = json!({"step": &**step, "approved": approved, "comment": said(comment)});
            // What it carries may be secret.
            if let Some(amendment) = amendment {
                let hash = engine::ContentHash::of(amendment.as_bytes()).to_string();
                body["amendment_sha256"] = json!(hash);
            }
            (origin, "run.decide", body)
        }
        Event::RollbackPlanned { number, to, target, needs_approval, origin } => {
            let body = json!({
                "number": number, "to": to, "behind": target, "needs_approval": needs_approval,
            });
            (origin, "rollback.plan", body)
        }
        Event::RollbackApproved { number, comment, origin } => {
            (origin, "rollback.approve", json!({"number": number, "comment": said(comment)}))
        }
        Event::RollbackAbandoned { number, reason, origin } => {
            (origin, "rollback.abandon", json!({"number": number, "reason": said(reason)}))
        }
        Event::RollbackStarted { number, steps, origin, .. } => {
            (origin, "rollback.execute", json!({"number": number, "steps": steps.len()}))
        }
        Event::UndoDecided { step, decision, comment, origin, .. } => {
            let body = json!({"step": &**step, "decision": decision, "comment": said(comment)});
            (origin, "rollback.decide_undo", body)
        }
        _ => return None,
    })
}

impl WritePath {
    /// Whether a run has to wait until it is known where its chain has come to.
    pub(super) fn awaits_head(&mut self, run: RunId) -> bool {
        let Some(slot) = self.slots.get_mut(&run) else { return false };
        if slot.audit.is_some() || !slot.queue.iter().any(may_be_audited) {
            return false;
        }
        slot.phase = match std::mem::replace(&mut slot.phase, Phase::Loading) {
            Phase::Idle(state) => Phase::Heading(state),
            other => {
                slot.phase = other;
                return false;
            }
        };
        self.read_head(run);
        true
    }

    /// Reads it beside the loop, for as long as the store takes.
    fn read_head(&self, run: RunId) {
        let (store, loads) = (self.shared.store.clone(), self.loads.clone());
        tokio::spawn(async move {
            let mut pause = limits::STORE_RETRY_MIN;
            let head = loop {
                match store.audit_head(&run_resource(run)).await {
                    Ok(head) => break Head::from(head),
                    Err(error) => tracing::warn!(%run, %error, "the audit log cannot be read"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::STORE_RETRY_MAX);
            };
            // With the loop gone nobody needs it.
            drop(loads.send(Loaded { run, found: Found::Head(head) }).await);
        });
    }

    pub(super) fn headed(&mut self, run: RunId, head: Head) {
        let Some(slot) = self.slots.get_mut(&run) else { return };
        match std::mem::replace(&mut slot.phase, Phase::Loading) {
            Phase::Heading(state) => {
                slot.audit = Some(head);
                slot.phase = Phase::Idle(state);
                self.pump(run);
            }
            other => slot.phase = other,
        }
    }
}
