//! The frames of links, to and from what the matcher knows. Decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::v1::{self, borrower_frame, connect_response, lender_frame};
use engine::Instant;
use engine::task::TaskKey;

use super::super::clocks::Clocks;
use super::super::lease::LeaseToken;
use super::super::registry::Needs;
use super::super::{card, convert};
use super::{FromBorrower, FromLender, Held, LinkFrame, Want};
use crate::limits;

/// Frames put together to messages of a bounded size.
struct Packed<F> {
    messages: Vec<Vec<F>>,
    bytes: usize,
}

impl<F> Packed<F> {
    fn new() -> Self {
        Self { messages: Vec::new(), bytes: 0 }
    }

    /// Takes up so many bytes; whether they fit into the message before.
    fn fits(&mut self, bytes: usize) -> bool {
        let fits = !self.messages.is_empty() && self.bytes + bytes <= limits::LINK_MESSAGE_BYTES;
        self.bytes = if fits { self.bytes + bytes } else { bytes };
        fits
    }

    fn push(&mut self, frame: F, fits: bool) {
        match self.messages.last_mut() {
            Some(last) if fits => last.push(frame),
            _ => self.messages.push(vec![frame]),
        }
    }

    fn last_mut(&mut self) -> Option<&mut F> {
        self.messages.last_mut()?.last_mut()
    }
}

/// Frames for a lender in messages; neighbours for the same agent are put together.
pub(in crate::dispatch) fn requests(
    frames: Vec<LinkFrame>,
    clocks: &Clocks,
    now: Instant,
) -> Vec<v1::LendRequest> {
    let mut sent: Packed<borrower_frame::Frame> = Packed::new();
    for frame in frames {
        let next = match frame {
            LinkFrame::Wants { wants, seen } => borrower_frame::Frame::Wants(v1::Wants {
                wants: wants.into_iter().map(|want| want_to_proto(want, now)).collect(),
                credits_seen: seen,
            }),
            LinkFrame::Seen(serial) => {
                borrower_frame::Frame::CreditsSeen(v1::CreditsSeen { serial })
            }
            LinkFrame::Held { agent, tasks } => {
                borrower_frame::Frame::ClaimsHeld(v1::ClaimsHeld { agent, tasks: refs(tasks) })
            }
            LinkFrame::Deliver { agent, frame } => {
                let frame = v1::ConnectResponse { frame: Some(convert::response(frame, clocks)) };
                let fits = sent.fits(prost::Message::encoded_len(&frame));
                let last = sent.last_mut().filter(|_| fits);
                let Some(frame) = joined(last, agent, frame) else { continue };
                let delivery = v1::Delivery { agent, frame: Some(frame) };
                sent.push(borrower_frame::Frame::Delivery(delivery), fits);
                continue;
            }
            LinkFrame::Offered { .. }
            | LinkFrame::Changed { .. }
            | LinkFrame::Withdrawn { .. }
            | LinkFrame::Lent { .. }
            | LinkFrame::Spoke { .. }
            | LinkFrame::Claims { .. } => {
                debug_assert!(false, "a frame of the other direction");
                continue;
            }
        };
        let next = v1::BorrowerFrame { frame: Some(next) };
        let fits = sent.fits(prost::Message::encoded_len(&next));
        next.frame.into_iter().for_each(|frame| sent.push(frame, fits));
    }
    let message = |frames: Vec<borrower_frame::Frame>| {
        let frames = frames.into_iter().map(|frame| v1::BorrowerFrame { frame: Some(frame) });
        v1::LendRequest { frames: frames.collect() }
    };
    sent.messages.into_iter().map(message).collect()
}

/// Puts tasks and acknowledgements to those before, when they are for the same agent; gives
/// back what stands for itself.
fn joined(
    last: Option<&mut borrower_frame::Frame>,
    agent: u64,
    frame: v1::ConnectResponse,
) -> Option<v1::ConnectResponse> {
    use connect_response::Frame;
    let last = match last {
        Some(borrower_frame::Frame::Delivery(last)) if last.agent == agent => last,
        _ => return Some(frame),
    };
    match (last.frame.as_mut().and_then(|it| it.frame.as_mut()), frame.frame) {
        (Some(Frame::Assign(last)), Some(Frame::Assign(next))) => last.tasks.extend(next.tasks),
        (Some(Frame::ResultsAck(last)), Some(Frame::ResultsAck(next))) => {
            last.acks.extend(next.acks);
        }
        (_, frame) => return Some(v1::ConnectResponse { frame }),
    }
    None
}

/// Frames for a borrower in messages.
pub(in crate::dispatch) fn responses(frames: Vec<LinkFrame>) -> Vec<v1::LendResponse> {
    let convert = |frame| {
        Some(match frame {
            LinkFrame::Offered { agent, registration, claims, closed } => {
                let register = card::to_proto(&registration, refs(claims));
                let register = Some(register);
                lender_frame::Frame::AgentOffered(v1::AgentOffered { agent, register, closed })
            }
            LinkFrame::Changed { agent, closed } => {
                lender_frame::Frame::AgentChanged(v1::AgentChanged { agent, closed })
            }
            LinkFrame::Withdrawn { agent } => {
                lender_frame::Frame::AgentWithdrawn(v1::AgentWithdrawn { agent })
            }
            LinkFrame::Lent { agent, serial, total, per_action } => {
                let credits = Some(credits_to_proto(total, &per_action));
                lender_frame::Frame::CreditsLent(v1::CreditsLent { agent, serial, credits })
            }
            LinkFrame::Spoke { agent, frame } => {
                let frame = Some(v1::ConnectRequest { frame: Some(*frame) });
                lender_frame::Frame::Utterance(v1::Utterance { agent, frame })
            }
            LinkFrame::Claims { agent, tasks } => {
                lender_frame::Frame::Claims(v1::Claims { agent, tasks: refs(tasks) })
            }
            LinkFrame::Wants { .. }
            | LinkFrame::Seen(_)
            | LinkFrame::Deliver { .. }
            | LinkFrame::Held { .. } => {
                debug_assert!(false, "a frame of the other direction");
                return None;
            }
        })
    };
    let mut sent = Packed::new();
    for frame in frames.into_iter().filter_map(convert) {
        let frame = v1::LenderFrame { frame: Some(frame) };
        let fits = sent.fits(prost::Message::encoded_len(&frame));
        sent.push(frame, fits);
    }
    sent.messages.into_iter().map(|frames| v1::LendResponse { frames }).collect()
}

/// What a borrower says. Frames that are not known are ignored.
pub(in crate::dispatch) fn from_borrower(
    request: v1::LendRequest,
    now: Instant,
) -> Vec<FromBorrower> {
    let understood = |frame: v1::BorrowerFrame| match frame.frame? {
        borrower_frame::Frame::Borrower(_) => None,
        borrower_frame::Frame::Wants(it) => {
            let wants = it.wants.into_iter().take(limits::LINK_WANTS_MAX);
            let wants = wants.map(|want| want_of(want, now)).collect();
            Some(FromBorrower::Wants { wants, seen: it.credits_seen })
        }
        borrower_frame::Frame::CreditsSeen(it) => Some(FromBorrower::Seen(it.serial)),
        borrower_frame::Frame::Delivery(it) => {
            let frame = it.frame?.frame?;
            Some(FromBorrower::Deliver { agent: it.agent, frame })
        }
        borrower_frame::Frame::ClaimsHeld(it) => {
            Some(FromBorrower::Held { agent: it.agent, tasks: tasks_of(&it.tasks) })
        }
    };
    request.frames.into_iter().filter_map(understood).collect()
}

/// What a lender says. Frames that are not known, and agents that are not understood, are
/// ignored.
pub(in crate::dispatch) fn from_lender(response: v1::LendResponse) -> Vec<FromLender> {
    let understood = |frame: v1::LenderFrame| match frame.frame? {
        lender_frame::Frame::AgentOffered(it) => {
            let (agent, closed) = (it.agent, it.closed);
            match card::check(it.register.unwrap_or_default()) {
                Ok(registration) => {
                    let registration = Box::new(registration);
                    Some(FromLender::Offered { agent, registration, closed })
                }
                Err(violations) => {
                    tracing::warn!(?violations, "a lent agent is not understood");
                    None
                }
            }
        }
        lender_frame::Frame::AgentChanged(it) => {
            Some(FromLender::Changed { agent: it.agent, closed: it.closed })
        }
        lender_frame::Frame::AgentWithdrawn(it) => Some(FromLender::Withdrawn { agent: it.agent }),
        lender_frame::Frame::CreditsLent(it) => {
            let credits = it.credits.unwrap_or_default();
            let count = |count: i32| u32::try_from(count).unwrap_or(0).min(limits::SLOTS_MAX);
            let limited = credits.per_action.into_iter();
            Some(FromLender::Lent {
                agent: it.agent,
                serial: it.serial,
                total: count(credits.total),
                per_action: limited.map(|(name, it)| (name.into(), count(it))).collect(),
            })
        }
        lender_frame::Frame::Utterance(it) => {
            let frames = convert::incoming(it.frame?.frame?);
            Some(FromLender::Spoke { agent: it.agent, frames })
        }
        lender_frame::Frame::Claims(it) => {
            Some(FromLender::Claims { agent: it.agent, tasks: tasks_of(&it.tasks) })
        }
    };
    response.frames.into_iter().filter_map(understood).collect()
}

fn want_to_proto(want: Want, now: Instant) -> v1::Want {
    let name = |name: Option<Arc<str>>| name.map_or_else(String::new, |name| name.to_string());
    v1::Want {
        agent: name(want.needs.agent),
        action: want.needs.action.to_string(),
        labels: want.needs.requires.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        preferred_instance: name(want.needs.preferred),
        waiting: want.waiting,
        level: u32::from(want.level),
        age: Some(convert::duration(now.since(want.since))),
    }
}

fn want_of(want: v1::Want, now: Instant) -> Want {
    let name = |name: String| (!name.is_empty()).then(|| name.into());
    let age = want.age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
    let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    Want {
        needs: Needs {
            agent: name(want.agent),
            action: want.action.into(),
            requires: Arc::new(want.labels.into_iter().collect()),
            preferred: name(want.preferred_instance),
        },
        waiting: want.waiting,
        level: u8::try_from(want.level).unwrap_or(u8::MAX).min(limits::PRIORITY_MAX),
        since: Instant(now.0.saturating_sub(micros)),
    }
}

fn credits_to_proto(total: u32, per_action: &BTreeMap<Arc<str>, u32>) -> v1::Credits {
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let per_action = per_action.iter().map(|(name, it)| (name.to_string(), count(*it)));
    v1::Credits { total: count(total), per_action: per_action.collect() }
}

fn refs(tasks: Held) -> Vec<v1::TaskRef> {
    tasks.into_iter().map(|(key, lease)| convert::task_ref(key, lease)).collect()
}

fn tasks_of(refs: &[v1::TaskRef]) -> Held {
    refs.iter().filter_map(task_of).collect()
}

/// The task and lease that a frame names; `None` when they are none of ours.
pub(in crate::dispatch) fn task_of(task: &v1::TaskRef) -> Option<(TaskKey, LeaseToken)> {
    Some((task.task_id.parse().ok()?, task.lease_token.parse().ok()?))
}
