//! `up`, `serve` and `agent`: processes that stay.

use agent_sdk::RunConfig;
use anyhow::Context as _;
use control_plane::clock::SystemClock;
use control_plane::config::{self, LogFormat, Sources};
use control_plane::control_plane::ControlPlane;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::arguments::{AgentArgs, ServeArgs};
use crate::bundled::{self, Crew};
use crate::telemetry;

/// Starts the control plane with all bundled agents.
pub(crate) async fn up(args: ServeArgs) -> anyhow::Result<()> {
    let Some(control_plane) = start(args).await? else { return Ok(()) };
    let crew = Crew::connect(&control_plane).await?;
    let stop = StopSignals::listen()?;
    ready(&control_plane);
    stop.wait().await;
    crew.stop().await;
    control_plane.stop().await;
    Ok(())
}

/// Starts the control plane alone.
pub(crate) async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let Some(control_plane) = start(args).await? else { return Ok(()) };
    let stop = StopSignals::listen()?;
    ready(&control_plane);
    stop.wait().await;
    control_plane.stop().await;
    Ok(())
}

/// Runs one bundled agent until it is told to stop.
pub(crate) async fn agent(args: AgentArgs, server: Option<&str>) -> anyhow::Result<()> {
    let agent = bundled::find(&args.name)?;
    telemetry::start("info", false);
    let mut config = RunConfig { instance: args.instance, ..RunConfig::default() };
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
    shutdown.cancel();
    tokio::select! {
        ended = &mut run => Ok(ended?),
        stop = stop_signal() => {
            stop?;
            anyhow::bail!("stopped by a second signal before its tasks were done")
        }
    }
}

/// `None`: the settings were shown, and nothing is to be started.
#[expect(clippy::print_stdout, reason = "what `--check-config` is for")]
async fn start(args: ServeArgs) -> anyhow::Result<Option<ControlPlane>> {
    let mut flags = Vec::new();
    let mut flag = |key: &str, value: Option<String>| {
        flags.extend(value.map(|value| (key.to_owned(), value)));
    };
    flag("listen", args.listen.map(|address| address.to_string()));
    flag("data_dir", args.data_dir.map(|path| path.display().to_string()));
    flag("database_url", args.database_url);
    flag("insecure", args.insecure.then(|| "true".to_owned()));
    let sources = Sources { flags, environment: environment(), file: args.config };
    let loaded = config::load(&sources)?;
    if args.check_config {
        print!("{}", loaded.render());
        return Ok(None);
    }
    telemetry::start(&loaded.config.log, loaded.config.log_format == LogFormat::Json);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let started = ControlPlane::start(&loaded.config, SystemClock::shared()).await;
    started.map(Some).context("the control plane cannot start")
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

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
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
