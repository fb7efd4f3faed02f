//! A kit of faults: drops, delays, duplicates and reorders frames on their way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::v1::{connect_request, connect_response};

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never comes.
    Drop,
    /// It comes late, and everything behind it as well.
    Delay(Duration),
    /// It comes twice.
    Duplicate,
    /// It comes behind the frame that follows it.
    Swap,
}

/// Faults in store, per kind of frame. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<VecDeque<(&'static str, Fault)>>>,
}

impl Faults {
    /// The next frame of this kind (as `results`, `results_ack`: the field's name in the
    /// contract) suffers this fault. Faults of one kind come one after the other.
    pub fn add(&self, kind: &'static str, fault: Fault) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push_back((kind, fault));
    }

    /// Takes the fault for a frame of this kind.
    pub(super) fn take(&self, kind: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let position = rules.iter().position(|(rule, _)| *rule == kind)?;
        rules.remove(position).map(|(_, fault)| fault)
    }
}

/// The kind of a frame from an agent.
pub(super) fn kind_of_request(frame: &connect_request::Frame) -> &'static str {
    use connect_request::Frame;
    match frame {
        Frame::Register(_) => "register",
        Frame::Credits(_) => "credits",
        Frame::Accepted(_) => "accepted",
        Frame::Progress(_) => "progress",
        Frame::Log(_) => "log",
        Frame::OutputChunk(_) => "output_chunk",
        Frame::Checkpoint(_) => "checkpoint",
        Frame::ExtendLease(_) => "extend_lease",
        Frame::Results(_) => "results",
        Frame::Release(_) => "release",
        Frame::Status(_) => "status",
        Frame::DrainRequested(_) => "drain_requested",
        Frame::Pong(_) => "pong",
        Frame::Emit(_) => "emit",
        Frame::Ping(_) => "ping",
    }
}

/// The kind of a frame from the control plane.
pub(super) fn kind_of_response(frame: &connect_response::Frame) -> &'static str {
    use connect_response::Frame;
    match frame {
        Frame::Registered(_) => "registered",
        Frame::Assign(_) => "assign",
        Frame::Proceed(_) => "proceed",
        Frame::Cancel(_) => "cancel",
        Frame::ResultsAck(_) => "results_ack",
        Frame::LeaseLost(_) => "lease_lost",
        Frame::Rebalance(_) => "rebalance",
        Frame::Drain(_) => "drain",
        Frame::Ping(_) => "ping",
        Frame::Fault(_) => "fault",
        Frame::Pong(_) => "pong",
    }
}

/// Sends frames on, each as its fault says.
pub(super) struct Channel<Frame> {
    faults: Faults,
    kind: fn(&Frame) -> &'static str,
    held: Option<Frame>,
}

impl<Frame: Clone> Channel<Frame> {
    pub(super) fn new(faults: Faults, kind: fn(&Frame) -> &'static str) -> Self {
        Self { faults, kind, held: None }
    }

    /// What is to be passed on now that this frame has come, and after which delay.
    pub(super) fn pass(&mut self, frame: Frame) -> (Duration, Vec<Frame>) {
        let mut delay = Duration::ZERO;
        let mut frames = match self.faults.take((self.kind)(&frame)) {
            None => vec![frame],
            Some(Fault::Drop) => Vec::new(),
            Some(Fault::Duplicate) => vec![frame.clone(), frame],
            Some(Fault::Delay(time)) => {
                delay = time;
                vec![frame]
            }
            Some(Fault::Swap) => {
                let earlier = self.held.replace(frame);
                return (delay, earlier.into_iter().collect());
            }
        };
        frames.extend(self.held.take());
        (delay, frames)
    }
}
