//! Client commands; `workflows execute` without a server gets a control plane of its own.

use std::path::Path;
use std::time::Duration;

use cli::{Command, Connection, Exit, Globals};
use control_plane::clock::SystemClock;
use control_plane::config::{self, Config, Sources};
use control_plane::control_plane::ControlPlane;

use crate::bundled::Crew;
use crate::serve;
use crate::telemetry;

/// What is logged beside the progress of the run.
const LOG: &str = "error";
/// A run of its own keeps its data in its own folder.
const DATABASE_VARIABLE: &str = "ORCHESTRATOR_DATABASE_URL";

/// The run has ended by then, or its user has left: nothing is left that is worth a wait.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Carries out a client command.
pub(crate) async fn client(
    command: Command,
    globals: &Globals,
    program: clap::Command,
) -> anyhow::Result<Exit> {
    if !command.wants_embedded(globals) {
        return Ok(cli::run(command, globals, Connection::of(globals), program).await);
    }
    let temporary = match command.data_dir() {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("orchestrator-").tempdir()?),
    };
    let folder = command.data_dir().map(Path::to_owned);
    let folder = folder.or_else(|| temporary.as_ref().map(|folder| folder.path().to_owned()));
    // Notifications and the like are configured as for a server; the port is not opened.
    let mut flags = vec![("log".to_owned(), LOG.to_owned())];
    flags.extend(folder.map(|folder| ("data_dir".to_owned(), folder.display().to_string())));
    let mut environment = serve::environment();
    environment.retain(|(name, _)| name != DATABASE_VARIABLE);
    let sources = Sources { flags, environment, file: None };
    let config = Config { listen: None, ..config::load(&sources)?.config };
    telemetry::start(&config.log, false);
    let control_plane = ControlPlane::start(&config, SystemClock::shared()).await;
    let control_plane = control_plane.map_err(|error| serve::explain(&error, &config))?;
    let crew = Crew::connect(&control_plane).await?;
    let connection = Connection::Channel(control_plane.channel());
    let exit = cli::run(command, globals, connection, program).await;
    crew.stop(STOP_TIMEOUT).await;
    control_plane.stop().await;
    Ok(exit)
}
