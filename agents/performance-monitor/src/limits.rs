//! Every bound of a measurement.

use std::time::Duration;

/// How many requests are sent unless told.
pub const REQUESTS: u32 = 200;
/// How many requests may be asked for.
pub const REQUESTS_MAX: u32 = 100_000;
/// How many requests are under way at once unless told.
pub const CONCURRENCY: u32 = 8;
/// How many requests may be under way at once.
pub const CONCURRENCY_MAX: u32 = 64;
/// How long it measures at most unless told.
pub const DURATION: Duration = Duration::from_secs(10);
/// How long it may be told to measure.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 60);
/// The share of requests that may fail unless told.
pub const ERROR_RATE: f64 = 0.01;
/// How long one request may take.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// The largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a server may take to be ready.
pub const START_TIME_MAX: Duration = Duration::from_secs(15);
/// How long to wait between two looks at the health path.
pub const HEALTH_INTERVAL: Duration = Duration::from_millis(25);
/// How long a server may take to end by itself.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the last words of an ended process are waited for.
pub const LAST_WORDS_TIME_MAX: Duration = Duration::from_millis(500);
/// How much of what a process prints is kept, in bytes.
pub const PRINTED_BYTES_MAX: usize = 16 * 1024;
/// How much of it a failure quotes, in characters.
pub const QUOTED_CHARS_MAX: usize = 400;

/// How often a command is started unless told.
pub const COMMAND_STARTS: u32 = 10;
/// How often a command may be started.
pub const COMMAND_STARTS_MAX: u32 = 1_000;
/// How long the first start of a command may take, which may have to build it.
pub const COMMAND_FIRST_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// How long each further start may take.
pub const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the processors are watched.
pub const CPU_SAMPLE: Duration = Duration::from_millis(200);
