//! Maps and sets for what is looked up all the time: a hash that is quick for short keys, with a
//! seed of each process's own, so that keys that others choose cannot be chosen to collide.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A map.
pub(crate) type QuickMap<K, V> = HashMap<K, V, RandomState>;
/// A set.
pub(crate) type QuickSet<K> = HashSet<K, RandomState>;
