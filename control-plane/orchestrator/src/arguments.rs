//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A control plane that coordinates agents.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, about = ABOUT, long_about = None)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// What holds for all client commands.
    #[command(flatten)]
    pub(crate) globals: cli::Globals,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const ABOUT: &str =
    "A control plane that coordinates agents: it runs workflows that are written in YAML.";

const AFTER_HELP: &str = "\
Examples:
  orchestrator workflows execute examples/project-build.yml   run a file right here
  orchestrator up                                             control plane and bundled agents
  orchestrator runs list                                      what ran, on http://127.0.0.1:8000
  orchestrator doctor                                         why does something wait?";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start the control plane with all bundled agents.
    #[command(after_help = UP_HELP)]
    Up(ServeArgs),
    /// Start the control plane alone.
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArgs),
    /// Run one bundled agent as a process of its own.
    #[command(after_help = AGENT_HELP)]
    Agent(AgentArgs),
    /// Back up the database while it is in use, check backups, restore them.
    #[command(subcommand, after_help = BACKUP_HELP)]
    Backup(BackupVerb),
    /// Everything that a client can ask.
    #[command(flatten)]
    Client(Box<cli::Command>),
}

const UP_HELP: &str = "\
Examples:
  orchestrator up
  orchestrator up --listen 127.0.0.1:0 --data-dir /var/lib/orchestrator
  orchestrator up --database-url postgres://orchestrator@127.0.0.1/orchestrator";

const SERVE_HELP: &str = "\
Examples:
  orchestrator serve --listen 127.0.0.1:8000
  orchestrator serve --config orchestrator.toml --check-config";

const AGENT_HELP: &str = "\
Examples:
  orchestrator agent echo --server http://127.0.0.1:8000
  orchestrator agent agent7 --instance quality-1";

/// How the control plane is started.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// The address to listen on; port 0 picks a free one [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The folder of the embedded store [default: .orchestrator]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep everything in this database: postgres://user@host/db or sqlite:/path/file.db
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// HOST:PORT at which other replicas on the same database reach this one [default: --listen]
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<String>,
    /// Allow to listen on other addresses than this machine's own, though nobody is authenticated
    #[arg(long)]
    pub(crate) insecure: bool,
    /// A TOML file with settings
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print each setting with its source, and stop
    #[arg(long)]
    pub(crate) check_config: bool,
}

const BACKUP_HELP: &str = "\
Examples:
  orchestrator backup create nightly.backup
  orchestrator backup create nightly.backup --database-url postgres://orchestrator@db/orchestrator
  orchestrator backup verify nightly.backup
  orchestrator backup restore nightly.backup --data-dir restored";

/// What to do with backups.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Write one moment of the database into a file, while others use it.
    Create(BackupArgs),
    /// Read a backup to its end and say what is in it.
    Verify {
        /// The backup; - reads from standard input
        file: PathBuf,
    },
    /// Put a backup into an empty database, of either kind: all of it or nothing.
    Restore(BackupArgs),
}

/// A backup and its database.
#[derive(Args, Clone, Debug)]
pub(crate) struct BackupArgs {
    /// The backup, a file that is not there yet when one is made; - is standard output or input
    pub(crate) file: PathBuf,
    /// The folder of the embedded store [default: .orchestrator]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The database: postgres://user@host/db or sqlite:/path/file.db
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// A TOML file with settings
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Which agent is run, and where it connects to.
#[derive(Args, Clone, Debug)]
pub(crate) struct AgentArgs {
    /// The agent's type or alias
    pub(crate) name: String,
    /// What this process is called; made from host and process id unless given
    #[arg(long)]
    pub(crate) instance: Option<String>,
    /// How many seconds its tasks may take to end when it is to stop; then they are cancelled
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub(crate) drain_timeout: u64,
}
