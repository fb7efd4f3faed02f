//! Hands what happens to running tasks to those who watch their run. Nothing is kept, and a
//! slow watcher misses some.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use engine::RunId;
use tokio::sync::broadcast;

use super::report::TaskUpdate;
use crate::limits;

#[derive(Debug, Default)]
pub(super) struct Updates {
    runs: Mutex<HashMap<RunId, broadcast::Sender<TaskUpdate>>>,
}

impl Updates {
    pub(super) fn watch(&self, run: RunId) -> broadcast::Receiver<TaskUpdate> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|_, sender| sender.receiver_count() > 0);
        let sender = runs.entry(run);
        sender.or_insert_with(|| broadcast::channel(limits::UPDATES_KEPT).0).subscribe()
    }

    pub(super) fn publish(&self, updates: Vec<TaskUpdate>) {
        if updates.is_empty() {
            return;
        }
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.is_empty() {
            return;
        }
        for update in updates {
            if let Some(sender) = runs.get(&update.key.run) {
                // An error says that nobody watches any more.
                let _ = sender.send(update);
            }
        }
    }
}
