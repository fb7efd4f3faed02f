//! The client commands of the binary `orchestrator`.
//!
//! A client of the public API and nothing more: it knows `contracts` alone and must not reach
//! into the control plane. Data goes to stdout, everything else to stderr.
//!
//! The binary flattens [`Globals`] and [`Command`] into its own arguments and hands over how
//! the control plane is reached. Where [`Command::wants_embedded`] says so it starts a control
//! plane in its own process first and hands over a channel to it:
//!
//! ```ignore
//! #[derive(clap::Parser)]
//! struct Arguments {
//!     #[command(flatten)]
//!     globals: cli::Globals,
//!     #[command(subcommand)]
//!     command: Verb,
//! }
//! #[derive(clap::Subcommand)]
//! enum Verb {
//!     Up(UpArgs), Serve(ServeArgs), Agent(AgentArgs),
//!     #[command(flatten)]
//!     Client(cli::Command),
//! }
//!
//! // in main, for `Verb::Client(command)`:
//! let connection = if command.wants_embedded(&globals) {
//!     running = start_embedded(command.data_dir()).await?;
//!     cli::Connection::Channel(running.channel())
//! } else {
//!     cli::Connection::of(&globals)
//! };
//! let exit = cli::run(command, &globals, connection, Arguments::command()).await;
//! running.stop().await;
//! std::process::ExitCode::from(exit)
//! ```

mod arguments;
mod audit;
mod commands;
mod connection;
mod follow;
mod progress;
mod watch;

mod definition;
mod params;
mod request_id;

mod complaint;
mod error;
mod exit;
mod issues;
mod json;
mod moment;
mod object;
mod output;
mod result;
mod status;
mod table;

#[cfg(test)]
mod tests;

pub use arguments::{ColorChoice, Format, Globals};
pub use commands::Command;
pub use connection::{Connection, DEFAULT_SERVER};
pub use exit::Exit;

use output::Output;

/// Carries out a client command and says what the process is to exit with.
///
/// `program` is the whole command line of the binary, for `completion`.
pub async fn run(
    command: Command,
    globals: &Globals,
    connection: Connection,
    program: clap::Command,
) -> Exit {
    let mut output = Output::of_process(globals);
    if let Command::Completion(shell) = command {
        return commands::complete(&shell, program, &mut output);
    }
    commands::run(command, connection, output, None).await
}
