//! Every bound of the engine, in one place.

use std::time::Duration;

/// The size of a definition, in bytes.
pub const DEFINITION_BYTES_MAX: usize = 1024 * 1024;
/// The number of steps in a definition, nested and parallel ones included.
pub const DEFINITION_STEPS_MAX: usize = 10_000;
/// The number of items in one `foreach`.
pub const FOREACH_ITEMS_MAX: usize = 100_000;
/// How deep step blocks may be nested.
pub const NESTING_MAX: usize = 32;
/// How many runs may stand above a sub-workflow's run.
pub const SUB_WORKFLOW_DEPTH_MAX: u8 = 16;
/// The size of params, of an output and of a signal's payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many iterations a `while` has when it does not say.
pub const WHILE_ITERATIONS_DEFAULT: u32 = 1000;
/// How many signals are kept for steps that have not come to wait for them yet.
pub const SIGNALS_BUFFERED_MAX: usize = 1000;
/// How many request ids a run remembers.
pub const REQUESTS_REMEMBERED_MAX: usize = 1000;
/// How many outputs of steps before a task carries for its missing fields.
pub const UPSTREAM_MAX: usize = 16;
/// How many events one decision may make; what is left is decided in the next one.
pub const EVENTS_PER_DECISION_MAX: usize = 5_000;
/// How long one attempt of an action may take when the step does not say.
pub const ACTION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long a cancelled task may take to stop by itself.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// The longest delay between two attempts of a step.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often an undo is tried.
pub const UNDO_ATTEMPTS_MAX: u32 = 10;
/// The first delay between two attempts of an undo.
pub const UNDO_DELAY: Duration = Duration::from_secs(1);
/// The longest delay between two attempts of an undo.
pub const UNDO_DELAY_MAX: Duration = Duration::from_secs(300);
/// How long one attempt of an undo may take.
pub const UNDO_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an undo may wait for an agent before a person is called.
pub const UNDO_QUEUE_TIMEOUT: Duration = Duration::from_secs(900);
/// How many undos of one run are out at once.
pub const UNDOS_AT_ONCE_MAX: usize = 100;
/// How many checkpoints a run remembers; of more, the oldest with a name are forgotten.
pub const CHECKPOINTS_MAX: usize = 10_000;
/// The priority of what does not say.
pub const PRIORITY_DEFAULT: u8 = 5;
/// The highest priority.
pub const PRIORITY_MAX: u8 = 9;
