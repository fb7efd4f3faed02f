//! A queue of two lanes: what stops work that is under way overtakes what else waits. Both are
//! bounded, and the usual lane moves on however much is urgent. How long things wait is kept.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::least_wait::LeastWait;
use super::lock;
use crate::limits;

/// A thing, and when it came.
type Stamped<T> = (Instant, T);

/// Makes a queue; each lane holds `bound` things.
pub(crate) fn lanes<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let (urgent_in, urgent) = mpsc::channel(bound);
    let (usual_in, usual) = mpsc::channel(bound);
    let waited = Arc::new(Mutex::new(LeastWait::new(limits::WAIT_WINDOW, Instant::now())));
    let sender = Sender { urgent: urgent_in, usual: usual_in, waited: Arc::clone(&waited) };
    (sender, Receiver { urgent, usual, waited, in_a_row: 0 })
}

/// The way in. Cheap to clone.
pub(crate) struct Sender<T> {
    urgent: mpsc::Sender<Stamped<T>>,
    usual: mpsc::Sender<Stamped<T>>,
    waited: Arc<Mutex<LeastWait>>,
}

/// The way in as long as somebody else holds it open.
pub(crate) struct WeakSender<T> {
    urgent: mpsc::WeakSender<Stamped<T>>,
    usual: mpsc::WeakSender<Stamped<T>>,
    waited: Arc<Mutex<LeastWait>>,
}

/// The way out.
pub(crate) struct Receiver<T> {
    urgent: mpsc::Receiver<Stamped<T>>,
    usual: mpsc::Receiver<Stamped<T>>,
    waited: Arc<Mutex<LeastWait>>,
    /// How many urgent things came one behind another.
    in_a_row: usize,
}

impl<T> Sender<T> {
    /// Puts something at the end of its lane.
    pub(crate) fn try_send(&self, urgent: bool, thing: T) -> Result<(), TrySendError<T>> {
        let lane = if urgent { &self.urgent } else { &self.usual };
        lane.try_send((Instant::now(), thing)).map_err(|error| match error {
            TrySendError::Full((_, thing)) => TrySendError::Full(thing),
            TrySendError::Closed((_, thing)) => TrySendError::Closed(thing),
        })
    }

    /// The same in the usual lane, once there is room; nothing when the queue is closed.
    pub(crate) async fn send(&self, thing: T) {
        drop(self.usual.send((Instant::now(), thing)).await);
    }

    /// How many things wait.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = |lane: &mpsc::Sender<_>| lane.max_capacity() - lane.capacity();
        waiting(&self.urgent) + waiting(&self.usual)
    }

    /// The least time that anything has waited of late: what even the luckiest waits for.
    pub(crate) fn least_wait(&self) -> std::time::Duration {
        lock(&self.waited).least(Instant::now(), self.waiting() > 0)
    }

    /// The same without holding the queue open.
    pub(crate) fn downgrade(&self) -> WeakSender<T> {
        let (urgent, usual) = (self.urgent.downgrade(), self.usual.downgrade());
        WeakSender { urgent, usual, waited: Arc::clone(&self.waited) }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        let (urgent, usual) = (self.urgent.clone(), self.usual.clone());
        Self { urgent, usual, waited: Arc::clone(&self.waited) }
    }
}

impl<T> WeakSender<T> {
    /// The way in, if it is open.
    pub(crate) fn upgrade(&self) -> Option<Sender<T>> {
        let (urgent, usual) = (self.urgent.upgrade()?, self.usual.upgrade()?);
        Some(Sender { urgent, usual, waited: Arc::clone(&self.waited) })
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        let (urgent, usual) = (self.urgent.clone(), self.usual.clone());
        Self { urgent, usual, waited: Arc::clone(&self.waited) }
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("in_a_row", &self.in_a_row).finish_non_exhaustive()
    }
}

impl<T> Receiver<T> {
    /// The next thing; `None` once the queue is closed and empty. Nothing is lost when this is
    /// given up before it returns.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        let (came, thing) = match self.next() {
            Some(next) => next,
            None => tokio::select! {
                biased;
                Some(next) = self.urgent.recv() => next,
                Some(next) = self.usual.recv() => next,
                else => return None,
            },
        };
        self.note(came);
        Some(thing)
    }

    /// The next thing if there is one.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        self.next().map(|(_, thing)| thing)
    }

    /// Waits for something, then takes what there is, up to `most` things; gives how many: none
    /// once the queue is closed and empty. Nothing is lost when this is given up.
    pub(crate) async fn recv_many(&mut self, into: &mut Vec<T>, most: usize) -> usize {
        let before = into.len();
        let Some(first) = self.recv().await else { return 0 };
        into.push(first);
        while into.len() - before < most
            && let Some(next) = self.try_recv()
        {
            into.push(next);
        }
        into.len() - before
    }

    /// Takes what there is, up to `most` things, without waiting.
    pub(crate) fn try_many(&mut self, into: &mut Vec<T>, most: usize) {
        for n in 0..most {
            let Some((came, thing)) = self.next() else { return };
            if n == 0 {
                self.note(came);
            }
            into.push(thing);
        }
    }

    /// Takes what is urgent, up to `most` things.
    pub(crate) fn take_urgent(&mut self, into: &mut Vec<T>, most: usize) {
        for _ in 0..most {
            let Ok((_, thing)) = self.urgent.try_recv() else { return };
            into.push(thing);
        }
    }

    fn note(&self, came: Instant) {
        let now = Instant::now();
        lock(&self.waited).note(now, now.saturating_duration_since(came));
    }

    fn next(&mut self) -> Option<Stamped<T>> {
        if self.in_a_row >= limits::URGENT_IN_A_ROW {
            self.in_a_row = 0;
            if let Ok(usual) = self.usual.try_recv() {
                return Some(usual);
            }
        }
        if let Ok(urgent) = self.urgent.try_recv() {
            self.in_a_row += 1;
            return Some(urgent);
        }
        self.in_a_row = 0;
        self.usual.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(usual: u32, urgent: u32) -> (Sender<u32>, Receiver<u32>) {
        let (sender, receiver) = lanes(1_000);
        (0..usual).for_each(|n| sender.try_send(false, n).unwrap());
        (1_000..1_000 + urgent).for_each(|n| sender.try_send(true, n).unwrap());
        (sender, receiver)
    }

    #[tokio::test]
    async fn what_is_urgent_overtakes_and_each_lane_keeps_its_order() {
        let (sender, mut receiver) = filled(3, 2);
        assert_eq!(sender.waiting(), 5);
        let mut taken = Vec::new();
        assert_eq!(receiver.recv_many(&mut taken, 4).await, 4);
        assert_eq!(taken, [1_000, 1_001, 0, 1]);
        sender.try_send(true, 2_000).unwrap();
        assert_eq!(receiver.recv().await, Some(2_000));
        assert_eq!(receiver.recv().await, Some(2));
        drop(sender);
        assert_eq!(receiver.recv().await, None);
        assert_eq!(receiver.recv_many(&mut taken, 4).await, 0);
    }

    #[tokio::test]
    async fn the_usual_lane_moves_on_however_much_is_urgent() {
        let (_sender, mut receiver) = filled(2, 1_000);
        let mut taken = Vec::new();
        receiver.recv_many(&mut taken, 2 * limits::URGENT_IN_A_ROW + 2).await;
        let usual: Vec<usize> =
            taken.iter().enumerate().filter(|(_, n)| **n < 2).map(|(at, _)| at).collect();
        assert_eq!(usual, [limits::URGENT_IN_A_ROW, 2 * limits::URGENT_IN_A_ROW + 1]);
    }

    #[tokio::test]
    async fn a_full_lane_leaves_the_other_open() {
        let (sender, mut receiver) = lanes(2);
        for n in 0..2 {
            sender.try_send(false, n).unwrap();
        }
        assert!(matches!(sender.try_send(false, 2), Err(TrySendError::Full(2))));
        sender.try_send(true, 3).unwrap();
        let mut urgent = Vec::new();
        receiver.take_urgent(&mut urgent, 10);
        assert_eq!(urgent, [3]);
        let weak = sender.downgrade();
        assert!(weak.upgrade().is_some());
        drop(sender);
        assert!(weak.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_things_wait_is_known() {
        let (sender, mut receiver) = lanes(10);
        for n in 0..4 {
            sender.try_send(false, n).unwrap();
            tokio::time::advance(limits::WAIT_WINDOW).await;
            receiver.recv().await.unwrap();
        }
        assert_eq!(sender.least_wait(), limits::WAIT_WINDOW);
        tokio::time::advance(2 * limits::WAIT_WINDOW).await;
        assert_eq!(sender.least_wait(), std::time::Duration::ZERO, "nothing waits any more");
    }
}
