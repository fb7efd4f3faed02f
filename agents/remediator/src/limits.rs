//! Every bound of the agent.

use std::time::Duration;

/// How many tasks it does at once.
pub const SLOTS: u32 = 8;
/// The largest file that is changed, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How many settings one task changes.
pub const SETTINGS_MAX: usize = 1_000;
/// How many names of one folder go into quarantine.
pub const NAMES_MAX: usize = 100_000;
/// How many names below a folder are looked at when its size is summed up, and how deep.
pub const WALK_NAMES_MAX: u64 = 200_000;
/// How deep folders may be nested.
pub const DEPTH_MAX: usize = 64;
/// How many checks one file lists.
pub const CHECKS_MAX: usize = 1_000;
/// The bytes of a new key: at least, unless told, and at most.
pub const KEY_BYTES: (usize, usize, usize) = (16, 32, 1_024);
/// How long a new key is good unless told.
pub const KEY_VALID_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long a process may take to end before it is killed, unless its manifest says; and how
/// long at most.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest such time.
pub const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// How long a killed process may take to be gone.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether a process has ended.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long to wait for a database that others hold.
pub const DATABASE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting to a database may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process that is being started may take to become its program.
pub const SETTLE_TIME: Duration = Duration::from_millis(50);
