//! Every bound of the control plane, named, in one place. Nothing else: no logic, no clocks
//! (those of the protocol are in `dispatch::clocks`).

use std::time::Duration;

// Agents and their sessions.

/// How many agents may be connected, or unreachable with tasks, at once.
pub const SESSIONS_MAX: usize = 10_000;
/// The largest number of slots or credits of one agent.
pub const SLOTS_MAX: u32 = 10_000;
/// How many actions one agent may offer.
pub const ACTIONS_MAX: usize = 1_000;
/// Of how many agent types the cards of equal agents are kept once.
pub const CARDS_SHARED: usize = 1_024;
/// How many aliases one agent may have.
pub const ALIASES_MAX: usize = 100;
/// How many labels one agent may have.
pub const LABELS_MAX: usize = 100;
/// The longest name of a type, instance, alias, action or label, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// The largest JSON Schema of an action's input or output, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// How many tasks an agent may name as in flight when it registers.
pub const CLAIMS_PER_AGENT_MAX: usize = 20_000;
/// How many claims of tasks that are not known yet are remembered.
pub const CLAIMS_MAX: usize = 200_000;
/// An agent with so many results that are not acknowledged yet gets no further tasks: it would
/// have no room for them.
pub const RESULTS_UNACKNOWLEDGED_MAX: u32 = 4_096;
/// An agent with so many unread frames gets no further tasks.
pub const OUTBOX_FRAMES_FULL: usize = 256;
/// An agent with so many unread frames is disconnected.
pub const OUTBOX_FRAMES_MAX: usize = 16_384;
/// How many frames a stream takes from its outbox at once.
pub const OUTBOX_FRAMES_TAKEN: usize = 256;
/// How many bytes of input one `Assign` frame carries before a further one is begun.
pub const ASSIGN_BYTES: usize = 256 * 1024;
/// The largest payload on the wire, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest message on the wire, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest message of a log line, of progress or of a failure, in bytes; what is longer
/// is cut.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// The most tasks that one poll takes.
pub const POLL_TASKS_MAX: u32 = 100;
/// The longest that a poll waits.
pub const POLL_WAIT_MAX: Duration = Duration::from_secs(60);
/// The most frames in one report.
pub const REPORT_FRAMES_MAX: usize = 1_000;
/// How long a report waits until the results in it are durable.
pub const REPORT_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long an agent may take to send its first frame.
pub const REGISTER_WAIT_MAX: Duration = Duration::from_secs(10);

// Tasks.

/// A task lost more often than this fails with the code `lost`.
pub const LOSSES_MAX: u32 = 8;
/// How many ended tasks are remembered at most, so that a second delivery is known as such.
pub const ENDED_TASKS_KEPT: usize = 16_384;
/// How many checkpoints of failed attempts are kept for the next ones.
pub const CHECKPOINTS_KEPT: usize = 10_000;
/// How many bytes those checkpoints may have together.
pub const CHECKPOINT_BYTES_KEPT: usize = 64 * 1024 * 1024;
/// Of more agents than this that could take a task, only some are compared.
pub const AGENTS_COMPARED: usize = 64;
/// How many empty lanes of the queue are kept for tasks to come.
pub const EMPTY_LANES_KEPT: usize = 1_024;
/// How many shares of fairness keys that do not wait are kept.
pub const IDLE_SHARES_KEPT: usize = 1_024;
/// The largest weight of a fairness key.
pub const WEIGHT_MAX: u32 = 1_000;
/// How long one level of priority takes to be gained by waiting.
pub const AGEING_STEP: Duration = Duration::from_secs(60);
/// With more waiting tasks than this, new work should be refused for a while.
pub const TASKS_WAITING_MAX: usize = 100_000;
/// The highest priority.
pub const PRIORITY_MAX: u8 = 9;
/// How many updates of one run a slow watcher may lag behind before it misses some.
pub const UPDATES_KEPT: usize = 1_024;

// Lending agents to other replicas.

/// A link with so many unread frames lends and borrows nothing more.
pub const LINK_FRAMES_FULL: usize = 8_192;
/// A link with so many unread frames is given up.
pub const LINK_FRAMES_MAX: usize = 65_536;
/// How many frames one message on a link takes.
pub const LINK_FRAMES_TAKEN: usize = 256;
/// What one message on a link holds before a further one is begun, in bytes.
pub const LINK_MESSAGE_BYTES: usize = 1024 * 1024;
/// The largest message on a link, in bytes: one frame that just fits elsewhere, and its envelope.
pub const LINK_MESSAGE_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// The first pause before a link that broke is opened again.
pub const LINK_RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const LINK_RETRY_MAX: Duration = Duration::from_secs(2);
/// How many kinds of waiting tasks a borrower names at once, the most urgent first.
pub const LINK_WANTS_MAX: usize = 64;
/// A borrower says no more often than this what waits.
pub const WANTS_EVERY: Duration = Duration::from_millis(2);
/// How often lent credits that were not used are taken back.
pub const LENDING_EVERY: Duration = Duration::from_millis(500);
/// How many lowerings of one loan may be under way at once.
pub const LOWERINGS_MAX: usize = 16;
/// How many tasks of others are known at the agents here.
pub const STRAYS_MAX: usize = 200_000;
/// How many bytes of results of such tasks are kept until they are acknowledged.
pub const STRAY_RESULT_BYTES: usize = 64 * 1024 * 1024;
/// Who waits longer gets more of what several want, up to so many times as much.
pub const LENDING_WEIGHT_MAX: u64 = 8;

// Circuit breakers.

/// The span over which a circuit breaker counts.
pub const BREAKER_WINDOW: Duration = Duration::from_secs(30);
/// In how many parts that span slides.
pub const BREAKER_BUCKETS: usize = 10;
/// With fewer results than this in the window, a circuit breaker stays closed.
pub const BREAKER_RESULTS_MIN: u32 = 20;
/// It opens when at least this many of a hundred results are failures.
pub const BREAKER_FAILURE_PERCENT: u32 = 50;
/// How long it stays open the first time; doubled with each trial that fails.
pub const BREAKER_OPEN_MIN: Duration = Duration::from_secs(5);
/// How long it stays open at most.
pub const BREAKER_OPEN_MAX: Duration = Duration::from_secs(60);

// Figures.

/// How far back the figures of agents reach.
pub const FIGURES_SPAN: Duration = Duration::from_secs(24 * 60 * 60);
/// How many pairs of agent type and action have figures; further ones are not counted.
pub const FIGURES_SERIES_MAX: usize = 2_000;
/// The default page of a list.
pub const PAGE_SIZE_DEFAULT: usize = 100;
/// The largest page of a list.
pub const PAGE_SIZE_MAX: usize = 1_000;

// Runs.

/// How many commands may wait for the write path at once.
pub const COMMANDS_QUEUED_MAX: usize = 65_536;
/// How many commands may wait for one run at once.
pub const COMMANDS_PER_RUN_MAX: usize = 10_000;
/// How many commands the write path takes at once.
pub const COMMANDS_AT_ONCE: usize = 256;
/// How many new runs it begins beside them, however many commands wait.
pub const STARTS_AT_LEAST: usize = 16;
/// With so many transitions waiting to be written, no new run is begun.
pub const STARTS_BEHIND_COMMITS: usize = 2 * BATCH_TRANSITIONS_MAX;
/// With so many new runs waiting to be begun, further ones are refused.
pub const STARTS_WAITING_ADMITTED: usize = 16_384;
/// When even the luckiest new run waits so long to be begun, further ones are refused.
pub const START_WAIT_ADMITTED: Duration = Duration::from_secs(1);
/// So many urgent things may overtake one that is not.
pub const URGENT_IN_A_ROW: usize = 64;
/// Over what time the least wait in a queue is taken.
pub const WAIT_WINDOW: Duration = Duration::from_millis(100);
/// How many commands of one run are decided in one transition.
pub const COMMANDS_PER_TRANSITION_MAX: usize = 256;
/// How many events one transition may collect before it is committed.
pub const EVENTS_PER_TRANSITION_MAX: usize = 5_000;
/// How many transitions one commit may hold.
pub const BATCH_TRANSITIONS_MAX: usize = store::limits::BATCH_TRANSITIONS_MAX;
/// How many bytes of journal bodies one commit may hold before a further transition is left over.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many events one commit may hold before a further transition is left over.
pub const BATCH_EVENTS_MAX: usize = store::limits::BATCH_EVENTS_MAX / 2;
/// How many runs are folded from the store at once.
pub const LOADS_MAX: usize = 32;
/// How many runs may be under way at once; more starts are refused for a while.
pub const RUNS_ACTIVE_MAX: usize = 200_000;
/// The highest bound on the runs in memory that can be configured.
pub const ACTIVE_RUNS_CONFIGURED_MAX: usize = RUNS_ACTIVE_MAX;
/// With so many commands waiting, new starts are refused; the rest of the queue is for what runs
/// that there are need.
pub const COMMANDS_WAITING_ADMITTED: usize = COMMANDS_QUEUED_MAX / 2;
/// With so many transitions waiting to be written, new starts are refused.
pub const COMMITS_WAITING_ADMITTED: usize = 32_768;
/// How many errands (child runs, notifications) are under way at once.
pub const ERRANDS_MAX: usize = 256;
/// How many compiled definitions are kept in memory.
pub const GRAPHS_CACHED_MAX: usize = 1_024;
/// How many runs are read and taken in at once.
pub const TAKE_IN_RUNS: usize = 500;
/// How many events they may have together, unless it is one run.
pub const TAKE_IN_EVENTS: i64 = 50_000;
/// How many commands are on their way to other replicas at once.
pub const PASSING_MAX: usize = 1_024;
/// The longest pause before a command is passed on again.
pub const PASS_RETRY_MAX: Duration = Duration::from_secs(1);
/// How much the write path may be told about itself at once.
pub const CONTROLS_QUEUED_MAX: usize = 4;
/// How many batches of runs are being parked at once.
pub const PARKINGS_UNDER_WAY: usize = 4;
/// How many runs are parked in one write.
pub const PARK_AT_ONCE: usize = 1_000;
/// How often, at most, runs that only wait are looked for.
pub const PARK_LOOK_MIN: Duration = Duration::from_millis(50);
/// How often, at least, runs that only wait are looked for.
pub const PARK_LOOK_MAX: Duration = Duration::from_secs(5);
/// With more runs in memory than these, those that only wait are parked soon.
pub const PARK_SOON_RUNS: usize = 8_192;
/// How often such runs are looked for then.
pub const PARK_SOON_LOOK: Duration = Duration::from_millis(100);
/// How long they have waited by then, at most.
pub const PARK_SOON_AFTER: Duration = Duration::from_millis(250);
/// Those that wake sooner than this stay even so.
pub const PARK_SOON_AHEAD: Duration = Duration::from_secs(10);
/// How many child runs the runs that are parked in one write wait for. One that waits for more
/// stays in memory.
pub const PARK_CHILDREN_AT_ONCE: usize = 10_000;
/// How long a parked run waits for a concurrency key before it is taken up to ask again, lest it
/// waits forever where the key's row was lost.
pub const PARKED_ASKS_AGAIN: Duration = Duration::from_secs(6 * 60 * 60);
/// How many unfinished runs are read from the store at once.
pub const ADOPTION_PAGE: u32 = 1_000;
/// How long a command waits for its answer before the client is told to try again.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a stopping process waits for the store.
pub const STORE_STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// The first pause before something is tried again that the store could not do.
pub const STORE_RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const STORE_RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a watcher looks into the store for a run whose owner does not tell it of news.
pub const WATCH_LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it looks although the owner does, lest a word that was lost be missed for long.
pub const WATCH_LOOK_SELDOM: Duration = Duration::from_secs(30);
/// How many news of followed runs may wait: for one watch, and on a stream between replicas.
pub const FOLLOW_NEWS_WAITING: usize = 64;
/// How many runs may be about to be followed at one replica.
pub const FOLLOWS_QUEUED_MAX: usize = 1_024;
/// How many runs one replica may follow at another: as many as it has watches.
pub const FOLLOWS_MAX: usize = WATCHES_MAX;
/// How often what nobody watches any more is no longer followed.
pub const FOLLOW_SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How many runs and steps may wait for one concurrency key or rate limit.
pub const KEY_WAITING_MAX: usize = 20_000;
/// How much may be asked of concurrency keys and rate limits before it waits for the next look.
pub const KEY_WANTS_QUEUED_MAX: usize = 65_536;
/// How much of that is taken at once.
pub const KEY_WANTS_AT_ONCE: usize = 4_096;
/// How many rows of keys one write changes.
pub const KEY_CHANGES_AT_ONCE: usize = 500;
/// How many rows of keys are remembered as they were written last.
pub const KEYS_KNOWN_MAX: usize = 10_000;
/// How many rows of keys are read at once.
pub const KEYS_PAGE: u32 = 1_000;
/// How many holders of a key are named to people.
pub const KEY_HOLDERS_SHOWN: usize = 8;
/// How often all rows of keys are looked at.
pub const KEYS_LOOK_EVERY: Duration = Duration::from_secs(30);
/// How many parked runs are read in one look, to see whether they know what they have.
pub const KEYS_LOOK_READS: usize = 500;

// Requests.

/// The largest answer with steps, events or a result, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many definitions may be handed in beside one.
pub const SIBLINGS_MAX: usize = 256;
/// How many definitions are looked at to find all that a run may need.
pub const SUB_WORKFLOWS_MAX: usize = 1_000;
/// How many warnings are given about one definition.
pub const WARNINGS_MAX: usize = 100;
/// How many labels one run may have.
pub const RUN_LABELS_MAX: usize = 64;
/// The longest value of a run's label, in bytes.
pub const RUN_LABEL_BYTES_MAX: usize = 1024;
/// The longest reason, comment or name of a signal in a request, in bytes.
pub const REQUEST_TEXT_BYTES_MAX: usize = 4096;
/// How many journal rows are read from the store at once.
pub const JOURNAL_ROWS_READ: usize = 64;
/// How many events are read at once where a run is looked at as it was.
pub const READ_TO_EVENTS: u32 = 256;
/// How many pages of rows one request looks through for those that it is about.
pub const PAGES_LOOKED_THROUGH_MAX: usize = 10;
/// How many folded runs are kept for the next page of their steps.
pub const FOLDED_RUNS_CACHED: usize = 4;
/// How many watches may be open at once.
pub const WATCHES_MAX: usize = 10_000;
/// How many items of one watch may wait for its reader.
pub const WATCH_ITEMS_WAITING: usize = 64;
/// How many starts of one stream of `StartRuns` may be on their way to the store at once.
pub const STARTS_PER_STREAM_MAX: usize = 4_096;
/// For how many runs' ends one stream of `StartRuns` may wait at once; then it is not read.
pub const ENDS_PER_STREAM_MAX: usize = 65_536;
/// How many answers of one stream of `StartRuns` may wait for their reader.
pub const STARTS_ANSWERS_WAITING: usize = 1_024;
/// How often a stream of `StartRuns` looks into the store for runs that went elsewhere.
pub const ENDS_LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many such runs one query is about.
pub const ENDS_LOOKED_AT: usize = 1_000;
/// How many such runs that have ended are read from the store at once.
pub const ENDS_READ_AT_ONCE: usize = 8;
/// How many findings one diagnosis lists.
pub const FINDINGS_MAX: usize = 200;
/// With the clocks so far apart, a diagnosis warns: waits and schedules come early or late by it.
pub const CLOCK_SKEW_WARN: Duration = Duration::from_secs(1);
/// A database that takes so long to answer something small is slow.
pub const STORE_ANSWER_WARN: Duration = Duration::from_millis(500);
/// From this share of a bound on, a diagnosis warns, in percent.
pub const BOUND_WARN_PERCENT: usize = 80;
/// Waits in the server's own queues shorter than this limit nothing.
pub const QUEUE_WAIT_NOTED: Duration = Duration::from_millis(50);
/// With less room than this on the disk, a diagnosis warns, in bytes.
pub const DISK_FREE_WARN: u64 = 2 * 1024 * 1024 * 1024;
/// With less than this, soon nothing can be written, in bytes.
pub const DISK_FREE_MIN: u64 = 256 * 1024 * 1024;
/// How many kinds of waiting tasks, and how many stuck runs, one diagnosis names.
pub const DIAGNOSED_KINDS: usize = 5;
/// How many waiting runs are looked at to count the decisions that people owe.
pub const ESCALATIONS_LOOKED_AT: u32 = 100;

// The server.

/// How many requests one connection may have open at once.
pub const STREAMS_PER_CONNECTION: u32 = 2_048;
/// How many connections may be open at once.
pub const CONNECTIONS_MAX: usize = 20_000;
/// How long agents may take to connect elsewhere before a stopping server ends their streams.
pub const AGENTS_LEAVE_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long a stop waits for what is under way.
pub const STOP_WAIT_MAX: Duration = Duration::from_secs(5);
/// What a pipe within the process holds in each direction, in bytes.
pub const PIPE_BYTES: usize = 1024 * 1024;

// Schedules and retention.

/// How many schedules there may be.
pub const SCHEDULES_MAX: usize = 10_000;
/// How many instants of one schedule are taken before the others get their turn.
pub const INSTANTS_AT_ONCE: usize = 100;
/// The scheduler looks at the clock at least so often.
pub const SCHEDULER_NAP_MAX: Duration = Duration::from_secs(60);
/// An instant later than this is missed, even while the process runs.
pub const INSTANT_LATE_MAX: Duration = Duration::from_secs(60);
/// How often what was written to the audit log is sealed.
pub const SEAL_EVERY: Duration = Duration::from_secs(60);
/// How many seals are written in one go at most; what is left waits for the next.
pub const SEALS_AT_ONCE: usize = 100;
/// How often an entry of the audit log is tried where others write to the same chain.
pub const AUDIT_ATTEMPTS: usize = 20;
/// How many entries of the audit log one request verifies; the next goes on behind them.
pub const AUDIT_STEPS_VERIFIED: u64 = 10_000;
/// The longest comment, reason or name that an entry of the audit log holds; longer ones are cut.
pub const AUDIT_TEXT_BYTES_MAX: usize = 16 * 1024;
/// How often retention looks for what it may remove.
pub const RETENTION_EVERY: Duration = Duration::from_secs(600);
/// How many rows retention removes at once.
pub const RETENTION_BATCH: u32 = 500;
/// How many such batches one look goes through at most.
pub const RETENTION_BATCHES: u32 = 200;
/// How long request ids are kept.
pub const REQUESTS_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a blob that nothing refers to is kept.
pub const BLOBS_KEPT: Duration = Duration::from_secs(3600);

// Replicas.

/// How long connecting to another replica may take.
pub const PEER_CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a silent replica is asked whether the connection lives.
pub const PEER_PING_EVERY: Duration = Duration::from_secs(2);
/// How long it may take to answer that.
pub const PEER_PING_WAIT_MAX: Duration = Duration::from_secs(2);
/// What a replica may send on one stream, or one connection, before it is read.
pub const PEER_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// How long a replica may take to answer what was passed on to it.
pub const PASS_WAIT_MAX: Duration = Duration::from_secs(35);
/// How long a replica may take to say what it sees of agents; one that does not is named instead.
pub const LOOK_WAIT_MAX: Duration = Duration::from_millis(500);
/// How often a watch of progress asks the other replicas what they see, at most.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest time over which the history of agents is looked at.
pub const LOOK_WINDOW_MAX: Duration = Duration::from_secs(3600);
/// How long a stop waits for the other replicas to hear of it.
pub const TAKE_OVER_WAIT_MAX: Duration = Duration::from_secs(1);
/// How many batches of runs that are taken over are read at once.
pub const FOLDINGS_MAX: usize = 4;
/// How often a replica looks for runs that nobody owns.
pub const ORPHANS_LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it is asked whether child runs have ended whose ends were not heard of.
pub const CHILDREN_LOOK_EVERY: Duration = Duration::from_secs(30);
/// How many owners are remembered that are gone.
pub const OWNERS_GONE_MAX: usize = 10_000;
/// How many unknown owners are asked about at once.
pub const OWNERS_ASKED_MAX: usize = 10_000;
/// How many events a run may take over from another one.
pub const EVENTS_FORKED_MAX: usize = 20_000;

// Recovery plans.

/// How often it is looked for ended recoveries of which nobody told.
pub const PLANS_LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long until one that goes on is looked at again, however long it went on already.
pub const PLANS_LOOK_PAUSE_MAX: Duration = Duration::from_secs(600);
/// How many are looked at in one go.
pub const PLANS_LOOKED_AT_ONCE: u32 = 1_000;
/// How many ends of recoveries wait to be written down; of others the next look finds out.
pub const PLAN_ENDS_WAITING: usize = 1_000;
/// How often the end of a recovery is tried to be written when others write it too.
pub const PLAN_CLOSE_ATTEMPTS: usize = 5;
/// Plans of one triage, the newest, that are looked through for what they have mended.
pub const PLANS_OF_TRIAGE_READ: u32 = 100;
/// Recoveries that are learned from, the newest.
pub const PLANS_LEARNED_MAX: usize = 2_000;

// Triage.

/// Agent types whose declarations are kept while they are away.
pub const DECLARATIONS_MAX: usize = 1_000;
/// Confirmed outcomes that are learned from, the newest.
pub const OUTCOMES_LEARNED_MAX: usize = 10_000;
/// Tenants whose model is kept in memory.
pub const TENANTS_LEARNED: usize = 100;
/// How long new outcomes wait for others before they are learned from in the background.
pub const LEARNING_DELAY: Duration = Duration::from_millis(500);
/// Outcomes in one request: each is a row of one transaction.
pub const OUTCOMES_MAX: usize = 900;
/// Of how many of them the audit log names each.
pub const OUTCOMES_AUDITED: usize = 500;
/// Triages on one page: each is read whole.
pub const TRIAGES_PAGE_MAX: usize = 50;
/// Threads that decide one triage.
pub const TRIAGE_THREADS: usize = 4;
/// How many comments an escalation has.
pub const ESCALATION_COMMENTS_MAX: usize = 200;
/// How often it is looked for escalations that people are to be told of, beside at once where they
/// were opened.
pub const ESCALATIONS_LOOK_EVERY: Duration = Duration::from_secs(30);
/// How many escalations people are told of before it is looked for more.
pub const ESCALATIONS_CALLED_AT_ONCE: u32 = 100;
/// How many of these are told each by itself; of more, the first so many and how many more.
pub const ESCALATIONS_TOLD_EACH: usize = 5;
/// How often it is looked for more in one go.
pub const ESCALATION_PAGES_AT_ONCE: usize = 20;
/// How many stored rows are looked through for one page of escalations where few fit its filter.
pub const ESCALATIONS_LOOKED_THROUGH: usize = 5_000;
/// How many open escalations a look at the deployment counts.
pub const ESCALATIONS_COUNTED: usize = 1_000;
/// Who has taken an escalation up: the longest name, in characters.
pub const ASSIGNEE_CHARS_MAX: usize = 200;
