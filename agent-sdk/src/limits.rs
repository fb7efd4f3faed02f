//! Every bound of the SDK, in one place. Clocks that the control plane sends on registering
//! are here only as what counts until it has sent them.

use std::time::Duration;

/// How many tasks an agent does at once when it does not say.
pub const SLOTS_DEFAULT: u32 = 8;
/// How many tasks a runner holds, whatever it is sent; more are given back. Enough for the most
/// slots that an agent may have, and the results that the control plane lets wait beside them.
pub const TASKS_MAX: usize = 16_384;
/// How many frames wait to be sent before no further task is taken on.
pub const FRAMES_QUEUED_MAX: usize = 4 * 1024;
/// How many log lines, chunks and the like wait to be sent; the oldest are dropped.
pub const NEWS_QUEUED_MAX: usize = 1024;
/// How many events wait to be sent.
pub const EMITS_QUEUED_MAX: usize = 1024;
/// How many results go in one frame.
pub const RESULTS_PER_FRAME_MAX: usize = 100;
/// How many bytes of results go in one frame, unless a single result is larger.
pub const RESULT_BYTES_PER_FRAME_MAX: usize = 2 * 1024 * 1024;
/// The largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The largest payload, in bytes, when the control plane does not say.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a message of a failure or of progress may be, in bytes.
pub const MESSAGE_TEXT_MAX: usize = 16 * 1024;

/// The shortest delay before connecting again.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest delay before connecting again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest delay before connecting again while tasks are in flight.
pub const BACKOFF_WITH_TASKS_MAX: Duration = Duration::from_secs(1);
/// How long connecting to one address may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the control plane may take to answer `Register`.
pub const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same two while tasks are in flight.
pub const CONNECT_WITH_TASKS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client waits for one answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client repeats a call that a server cannot serve just now.
pub const CALL_PATIENCE: Duration = Duration::from_secs(30);
/// A session that lasted this long counts as healthy: the backoff begins anew.
pub const SESSION_HEALTHY: Duration = Duration::from_secs(5);

/// How often the time doubles after which an unacknowledged result is sent again.
pub const RESEND_DOUBLINGS_MAX: u32 = 4;
/// How often `Status` names all tasks while tasks are out.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How often an agent pings while it has nothing to do.
pub const PING_IDLE_INTERVAL: Duration = Duration::from_secs(20);
/// How often it pings with tasks, when the control plane does not say.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
/// After what silence a stream is dead, when the control plane does not say.
pub const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait for `Proceed`, when the control plane does not say.
pub const PROCEED_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a cancelled handler may take, when the control plane does not say.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// How long behind its time-out a handler is cancelled if the control plane has not done it.
pub const TIMEOUT_MARGIN: Duration = Duration::from_secs(1);
/// How long the last frames may take to leave when the agent stops.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
