//! `up`, `serve` and `agent`: processes that stay.

use std::io::ErrorKind;
use std::time::Duration;

use agent_sdk::RunConfig;
use control_plane::clock::SystemClock;
use control_plane::config::{self, Config, LogFormat, Sources};
use control_plane::control_plane::{ControlPlane, Error};
use control_plane::{core, data_dir, server};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::arguments::{AgentArgs, ServeArgs};
use crate::bundled::{self, Crew};
use crate::telemetry;

/// What `up` logs by default: that each bundled agent is there is no news.
const LOG_OF_UP: &str = "info,agent_sdk=warn";
/// By this a user says how many threads there are to be.
const THREADS_VARIABLE: &str = "TOKIO_WORKER_THREADS";
/// How long bundled agents may take to finish what they have when the process stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the control plane with all bundled agents.
pub(crate) async fn up(args: ServeArgs) -> anyhow::Result<()> {
    let Some(control_plane) = start(args, LOG_OF_UP).await? else { return Ok(()) };
    let crew = Crew::connect(&control_plane).await?;
    let mut stop = StopSignals::listen()?;
    tracing::info!("{} agents are connected", control_plane.core().dispatcher.counts().agents);
    ready(&control_plane);
    stop.wait().await;
    let stopped = async {
        crew.stop(DRAIN_TIMEOUT).await;
        control_plane.stop().await;
    };
    stop.unless_hurried(stopped).await;
    Ok(())
}

/// Starts the control plane alone.
pub(crate) async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let Some(control_plane) = start(args, "info").await? else { return Ok(()) };
    let mut stop = StopSignals::listen()?;
    ready(&control_plane);
    stop.wait().await;
    stop.unless_hurried(control_plane.stop()).await;
    Ok(())
}

/// Runs one bundled agent until it is told to stop.
pub(crate) async fn agent(args: AgentArgs, server: Option<&str>) -> anyhow::Result<()> {
    let agent = bundled::find(&args.name)?;
    telemetry::start("info", false);
    let drain_timeout = Some(Duration::from_secs(args.drain_timeout));
    let mut config = RunConfig { instance: args.instance, drain_timeout, ..RunConfig::default() };
    if let Some(server) = server {
        config.servers = server.split(',').map(|url| url.trim().to_owned()).collect();
    }
    let shutdown = CancellationToken::new();
    let run = agent.run(config, shutdown.clone());
    tokio::pin!(run);
    tokio::select! {
        ended = &mut run => return Ok(ended?),
        stop = stop_signal() => stop?,
    }
    tracing::info!("stopping when the tasks it has are done; a second signal stops at once");
    shutdown.cancel();
    tokio::select! {
        ended = &mut run => Ok(ended?),
        stop = stop_signal() => {
            stop?;
            anyhow::bail!("stopped by a second signal before its tasks were done")
        }
    }
}

/// How many threads `serve` is to have, where that is not one for each core: with SQLite its writer
/// has a thread of its own, with which they would take turns, and each turn passes runs from the
/// cache of one core to another's. What is wrong with the settings is told when they are used.
pub(crate) fn threads(args: &ServeArgs) -> Option<usize> {
    let embedded = config::load(&sources(args)).ok()?.config.is_embedded();
    let cores = std::thread::available_parallelism().ok()?.get();
    let named = std::env::var_os(THREADS_VARIABLE).is_some();
    if named { None } else { threads_on(cores, embedded) }
}

fn threads_on(cores: usize, embedded: bool) -> Option<usize> {
    (embedded && cores > 1).then(|| cores - 1)
}

/// Where the settings of a process that stays come from.
fn sources(args: &ServeArgs) -> Sources {
    let mut flags = Vec::new();
    let mut flag = |key: &str, value: Option<String>| {
        flags.extend(value.map(|value| (key.to_owned(), value)));
    };
    flag("listen", args.listen.map(|address| address.to_string()));
    flag("data_dir", args.data_dir.as_ref().map(|path| path.display().to_string()));
    flag("database_url", args.database_url.clone());
    flag("advertise", args.advertise.clone());
    flag("insecure", args.insecure.then(|| "true".to_owned()));
    Sources { flags, environment: environment(), file: args.config.clone() }
}

/// `None`: the settings were shown, and nothing is to be started. `log` is the filter of the log
/// where nothing is set.
#[expect(clippy::print_stdout, reason = "what `--check-config` is for")]
async fn start(args: ServeArgs, log: &str) -> anyhow::Result<Option<ControlPlane>> {
    let loaded = config::load(&sources(&args))?;
    if args.check_config {
        print!("{}", loaded.render());
        return Ok(None);
    }
    let config = &loaded.config;
    let filter = if config.log == Config::default().log { log } else { &config.log };
    telemetry::start(filter, config.log_format == LogFormat::Json);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let control_plane = ControlPlane::start(config, SystemClock::shared()).await;
    let control_plane = control_plane.map_err(|error| explain(&error, config))?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!("orchestrator {version} keeps its data in {}", config.kept_in());
    Ok(Some(control_plane))
}

/// Why the control plane cannot start, and what can be done.
pub(crate) fn explain(error: &Error, config: &Config) -> anyhow::Error {
    let help = match error {
        Error::Server(server::Error::Listen { source, .. }) => match source.kind() {
            ErrorKind::AddrInUse => {
                "stop what listens there, or give another address with --listen; port 0 picks a \
                 free one"
            }
            _ => "give another address with --listen",
        },
        Error::DataDir(data_dir::Error::Io { .. }) => {
            "give a folder that can be made and written with --data-dir"
        }
        Error::Core(core::Error::Store(_)) if config.database_url.is_some() => {
            let kept_in = config.kept_in();
            return anyhow::anyhow!(
                "the control plane cannot start: {error}\n  help: see that the database {kept_in} \
                 runs and lets this user in; its address is given by --database-url, \
                 ORCHESTRATOR_DATABASE_URL or the file"
            );
        }
        _ => return anyhow::anyhow!("the control plane cannot start: {error}"),
    };
    anyhow::anyhow!("the control plane cannot start: {error}\n  help: {help}")
}

/// Tells whoever waits for it that requests are served.
#[expect(clippy::print_stderr, reason = "a line that scripts wait for")]
fn ready(control_plane: &ControlPlane) {
    if let Some(address) = control_plane.address() {
        eprintln!("ready http://{address}");
    }
}

/// What asks the process to stop. Listened to before `ready` is said: whoever is told so may ask
/// at once, and a signal that nobody listens to would end the process where it stands.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
    /// Stops in order; at a second signal at once, as after a crash: nothing acknowledged is lost.
    async fn unless_hurried(&mut self, stopped: impl Future<Output = ()>) {
        tracing::info!("stopping when what is under way has ended; a second signal stops at once");
        tokio::select! {
            () = stopped => {}
            () = self.wait() => {
                tracing::warn!("stopped at once; the next start goes on where this one was");
            }
        }
    }
}

async fn stop_signal() -> anyhow::Result<()> {
    StopSignals::listen()?.wait().await;
    Ok(())
}

/// The environment, as far as it is text.
pub(crate) fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::threads_on;

    #[test]
    fn the_writer_of_sqlite_has_a_core_to_itself() {
        assert_eq!(threads_on(8, true), Some(7));
        assert_eq!(threads_on(2, true), Some(1));
        assert_eq!(threads_on(1, true), None);
        assert_eq!(threads_on(2, false), None, "one for each core");
    }
}
