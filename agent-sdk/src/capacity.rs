//! How many tasks an agent takes at once, changed while it runs: by its own program, on purpose.

use std::sync::Arc;

use tokio::sync::watch;

/// The handle by which a program changes how many tasks its agent takes while it runs, from
/// [`Agent::capacity`](crate::Agent::capacity). Tasks that the agent has already go on. Cheap to
/// clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Capacity(Arc<watch::Sender<Option<u32>>>);

impl Default for Capacity {
    fn default() -> Self {
        Self(Arc::new(watch::channel(None).0))
    }
}

impl Capacity {
    /// Takes nothing new until [`Capacity::resume`].
    pub fn pause(&self) {
        self.limit(0);
    }

    /// Takes as many tasks at once as the agent has slots.
    pub fn resume(&self) {
        self.0.send_replace(None);
    }

    /// Takes at most `tasks` at once, and never more than the agent has slots.
    pub fn limit(&self, tasks: u32) {
        self.0.send_replace(Some(tasks));
    }

    pub(crate) fn changes(&self) -> Changes {
        let mut receiver = self.0.subscribe();
        // What was said before the session began is news to its control plane.
        if receiver.borrow().is_some() {
            receiver.mark_changed();
        }
        Changes(receiver)
    }
}

/// The changes of a capacity, as one session hears of them.
pub(crate) struct Changes(watch::Receiver<Option<u32>>);

impl Changes {
    /// The next bound; `None` when there is none any more. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<u32> {
        if self.0.changed().await.is_err() {
            return std::future::pending().await;
        }
        *self.0.borrow()
    }
}
