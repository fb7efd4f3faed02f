//! Every bound of the error log.

use std::time::Duration;

/// How much of a message is kept, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// How much of a step's or run's name is kept, in bytes.
pub const NAME_BYTES_MAX: usize = 512;
/// How many records are kept; the oldest go first.
pub const RECORD_COUNT_MAX: usize = 20_000;
/// How many lines the file may have more than records before it is written anew.
pub const LINE_SLACK_MAX: usize = 20_000;
/// The longest line that is read, in bytes.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// How many fingerprints `track_errors` lists, the most frequent first.
pub const FINGERPRINTS_SHOWN_MAX: usize = 100;
/// How far `track_errors` looks back unless told.
pub const WINDOW: Duration = Duration::from_secs(5 * 60);
/// How far `track_errors` can look back.
pub const WINDOW_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long one observation lasts when nobody says how many there were.
pub const INTERVAL: Duration = Duration::from_secs(60);
