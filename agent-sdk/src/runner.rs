//! Runs an agent: connects, and connects again for ever, until it is told to stop. Tasks go on
//! while there is no stream.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rand::RngExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing_subscriber::EnvFilter;

use crate::backoff::Backoff;
use crate::board::Board;
use crate::connect::Way;
use crate::limits::{
    CANCEL_GRACE, CONNECT_TIMEOUT, CONNECT_WITH_TASKS_TIMEOUT, FAREWELL_TIMEOUT, REGISTER_TIMEOUT,
    SESSION_HEALTHY,
};
use crate::outcome::Stop;
use crate::session::{self, Dialling, End, Session, describe};
use crate::{Agent, Error, RunConfig};

impl Agent {
    /// Runs it as the environment and the command line say (see [`RunConfig::from_env`]) until
    /// SIGTERM or SIGINT; then it takes nothing new, finishes what it has, reports it and
    /// returns. A second signal makes it return at once. What happens is logged on stderr, as
    /// `RUST_LOG` says, unless the program logs in its own way.
    pub async fn run_from_env(self) -> anyhow::Result<()> {
        log_to_stderr();
        let config = RunConfig::from_env()?;
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let run = self.run(config, shutdown.clone());
        tokio::pin!(run);
        loop {
            tokio::select! {
                result = &mut run => return Ok(result?),
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                anyhow::bail!("stopped by a second signal before its tasks were done");
            }
            shutdown.cancel();
        }
    }

    /// Runs it until `shutdown` is cancelled; returns after draining.
    pub async fn run(self, config: RunConfig, shutdown: CancellationToken) -> Result<(), Error> {
        let ways = config.servers.iter().map(|address| Way::by_address(address));
        let ways = ways.collect::<Result<Vec<_>, _>>()?;
        if ways.is_empty() {
            return Err(Error::Argument("no address of a control plane is given".to_owned()));
        }
        Runner::new(self.configured(config), ways)?.run(shutdown).await
    }

    /// Runs it over channels that `factory` gives, one for each connection, until `shutdown` is
    /// cancelled; returns after draining.
    pub async fn run_on<Factory, Opening, E>(
        self,
        factory: Factory,
        shutdown: CancellationToken,
    ) -> Result<(), Error>
    where
        Factory: Fn() -> Opening + Send + Sync + 'static,
        Opening: Future<Output = Result<Channel, E>> + Send + 'static,
        E: Display,
    {
        Runner::new(self, vec![Way::by_factory(factory)])?.run(shutdown).await
    }

    fn configured(mut self, config: RunConfig) -> Self {
        self.instance = config.instance.or(self.instance);
        self.drain_timeout = config.drain_timeout.or(self.drain_timeout);
        self
    }
}

struct Runner {
    board: Arc<Board>,
    ways: Vec<Way>,
    /// Where to begin looking, so that losing one address leads to the next.
    turn: usize,
    instance: String,
    token: String,
    drain_timeout: Option<Duration>,
    backoff: Backoff,
    /// A connection that was made before the last session was left.
    next: Option<Channel>,
}

impl Runner {
    fn new(agent: Agent, ways: Vec<Way>) -> Result<Self, Error> {
        agent.check()?;
        let instance = agent.instance.clone().unwrap_or_else(instance);
        let drain_timeout = agent.drain_timeout;
        Ok(Self {
            board: Board::new(agent),
            ways,
            turn: 0,
            instance,
            token: String::new(),
            drain_timeout,
            backoff: Backoff::default(),
            next: None,
        })
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let board = Arc::clone(&self.board);
        let drain_timeout = self.drain_timeout;
        let drain = shutdown.child_token();
        tokio::select! {
            result = self.serve(&drain) => result,
            () = overdue(&board, &drain, drain_timeout) => {
                Err(Error::Drain { tasks: board.tasks() })
            }
        }
    }

    async fn serve(&mut self, drain: &CancellationToken) -> Result<(), Error> {
        let board = Arc::clone(&self.board);
        let mut losses: u32 = 0;
        loop {
            if drain.is_cancelled() {
                board.drain();
            }
            let tried = Instant::now();
            let opened = tokio::select! {
                biased;
                () = stopped_idle(&board, drain) => return Ok(()),
                opened = self.open() => opened,
            };
            let why = match opened {
                Ok(session) => {
                    let began = Instant::now();
                    let changes = board.agent().capacity.changes();
                    let end = session.run(drain, changes, || self.dial()).await;
                    if began.elapsed() >= SESSION_HEALTHY {
                        self.backoff.reset();
                        losses = 0;
                    }
                    match end {
                        End::Drained => return Ok(()),
                        End::Rebalance((turn, channel)) => {
                            self.turn = turn;
                            self.next = Some(channel);
                            continue;
                        }
                        End::Lost(why) => why,
                    }
                }
                Err(status) if self.is_refused(&status) => {
                    return Err(Error::Refused(describe(&status)));
                }
                Err(status) => describe(&status),
            };
            self.turn += 1;
            let tasks = board.tasks();
            let delay = self.backoff.next(tasks > 0);
            // With tasks the tries begin at least a second apart, however long each took.
            let delay = if tasks > 0 { delay.saturating_sub(tried.elapsed()) } else { delay };
            losses = losses.saturating_add(1);
            // An hour without a server is a dozen lines, not thousands.
            if losses.is_power_of_two() {
                tracing::warn!(why, tasks, losses, "not connected; tries again until it is");
            } else {
                tracing::debug!(why, tasks, losses, ?delay, "not connected; tries again");
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stopped_idle(&board, drain) => return Ok(()),
            }
        }
    }

    /// Opens a session: with tasks in flight over whatever address answers first, otherwise
    /// over the next one in turn.
    async fn open(&mut self) -> Result<Session, Status> {
        let with_tasks = self.board.tasks() > 0;
        if let Some(channel) = self.next.take()
            && let Ok(session) = self.register(channel, with_tasks).await
        {
            return Ok(session);
        }
        let within = if with_tasks { CONNECT_WITH_TASKS_TIMEOUT } else { CONNECT_TIMEOUT };
        let count = if with_tasks { self.ways.len() } else { 1 };
        let mut opening = JoinSet::new();
        for offset in 0..count {
            let way = self.ways[(self.turn + offset) % self.ways.len()].clone();
            opening.spawn(async move {
                let opened = way.open(within).await;
                opened.map_err(|error| format!("{}: {error}", way.name))
            });
        }
        let mut failure = Status::unavailable("no address answers");
        while let Some(opened) = opening.join_next().await {
            match opened {
                Ok(Ok(channel)) => match self.register(channel, with_tasks).await {
                    Ok(session) => return Ok(session),
                    Err(status) => failure = status,
                },
                Ok(Err(why)) => failure = Status::unavailable(why),
                Err(error) => failure = Status::internal(error.to_string()),
            }
        }
        Err(failure)
    }

    /// Makes a connection to go on with: to whichever other address answers first, or to the same
    /// one where no other does; tries until one does.
    fn dial(&self) -> Dialling {
        let (ways, turn) = (self.ways.clone(), self.turn);
        Box::pin(async move {
            let dial = async |index: usize| {
                let opened = ways[index].open(CONNECT_WITH_TASKS_TIMEOUT).await;
                opened.ok().map(|channel| (index, channel))
            };
            let mut backoff = Backoff::default();
            loop {
                let others = (1..ways.len()).map(|offset| dial((turn + offset) % ways.len()));
                let mut others: FuturesUnordered<_> = others.collect();
                while let Some(opened) = others.next().await {
                    if let Some(opened) = opened {
                        return opened;
                    }
                }
                if let Some(opened) = dial(turn % ways.len()).await {
                    return opened;
                }
                tokio::time::sleep(backoff.next(true)).await;
            }
        })
    }

    async fn register(&mut self, channel: Channel, with_tasks: bool) -> Result<Session, Status> {
        let within = if with_tasks { CONNECT_WITH_TASKS_TIMEOUT } else { REGISTER_TIMEOUT };
        let opening = session::open(&self.board, channel, &self.instance, &self.token);
        let opened = match tokio::time::timeout(within, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(Status::deadline_exceeded(format!("not registered within {within:?}"))),
        };
        match opened {
            Ok((session, token)) => {
                self.token = token;
                Ok(session)
            }
            Err(status) => {
                self.board.end_session();
                Err(status)
            }
        }
    }

    /// Whether the agent is refused for what it says of itself: then trying again is no use.
    /// Once it was registered, whoever refuses it now is to blame, and tasks may be at stake.
    fn is_refused(&self, status: &Status) -> bool {
        status.code() == Code::InvalidArgument && self.token.is_empty() && self.board.tasks() == 0
    }
}

/// Fires when the agent is to stop and has nothing to report.
async fn stopped_idle(board: &Board, drain: &CancellationToken) {
    drain.cancelled().await;
    while board.tasks() > 0 {
        board.changed.notified().await;
    }
}

/// Fires when draining took too long, even after all tasks were cancelled.
async fn overdue(board: &Arc<Board>, drain: &CancellationToken, timeout: Option<Duration>) {
    let Some(timeout) = timeout else { return std::future::pending().await };
    drain.cancelled().await;
    tokio::time::sleep(timeout).await;
    tracing::warn!(tasks = board.tasks(), "draining takes too long; tasks are cancelled");
    board.stop_all(Stop::Stopping, CANCEL_GRACE);
    tokio::time::sleep(CANCEL_GRACE + FAREWELL_TIMEOUT).await;
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // It fails when the program has set up its own log, which then is the right one.
    let _ = log.try_init();
}

/// A name for this process that no other one has: host, process and a random part, since a
/// container's process id is often 1 and one process may run several agents of a type.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "agent",
        host => host,
    };
    #[expect(clippy::disallowed_methods, reason = "the name is to be like no other's")]
    let random = rand::rng().random_range(0..0x100_0000_u32);
    format!("{host}-{}-{random:06x}", std::process::id())
}
