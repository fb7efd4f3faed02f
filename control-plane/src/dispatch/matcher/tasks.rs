//! All tasks that dispatch has: found at once by their keys, and walked through in their order.
//! Pure data.

use std::collections::BTreeSet;

use engine::RunId;
use engine::task::{Purpose, TaskKey};

use super::Task;
use crate::hash::QuickMap;

#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// Boxed, for the map moves its entries about.
    all: QuickMap<TaskKey, Box<Task>>,
    order: BTreeSet<TaskKey>,
}

impl Tasks {
    pub(super) fn get(&self, key: &TaskKey) -> Option<&Task> {
        self.all.get(key).map(|task| &**task)
    }

    pub(super) fn get_mut(&mut self, key: &TaskKey) -> Option<&mut Task> {
        self.all.get_mut(key).map(|task| &mut **task)
    }

    pub(super) fn contains_key(&self, key: &TaskKey) -> bool {
        self.all.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: TaskKey, task: Task) {
        if self.all.insert(key, Box::new(task)).is_none() {
            self.order.insert(key);
        }
    }

    pub(super) fn remove(&mut self, key: &TaskKey) -> Option<Box<Task>> {
        let task = self.all.remove(key)?;
        self.order.remove(key);
        Some(task)
    }

    /// In the order of their keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &TaskKey> {
        self.order.iter()
    }

    /// In the order of their keys.
    pub(super) fn values(&self) -> impl Iterator<Item = &Task> {
        self.order.iter().filter_map(|key| self.get(key))
    }

    /// Those of one run, in order.
    pub(super) fn keys_of(&self, run: RunId) -> Vec<TaskKey> {
        let first = TaskKey { run, instance: engine::InstanceId(0), purpose: Purpose::Do };
        self.order.range(first..).take_while(|key| key.run == run).copied().collect()
    }
}
