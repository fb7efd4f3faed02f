//! The binary `orchestrator`: control plane, bundled agents and client commands, put together.

mod arguments;
mod backup;
mod bundled;
mod embedded;
mod serve;
mod telemetry;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

use arguments::{Arguments, Verb};

/// Memory goes from one thread to another all the time here: taken where a result comes in, given
/// back where it is committed or sent. This one is made for that; `.cargo/config.toml` sets it up.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long a process that is done waits for threads that still work.
const LEFT_BEHIND_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Before anything makes a TLS client; a second installation is refused and not needed.
    drop(rustls::crypto::ring::default_provider().install_default());
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nobody may be there to read it.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    if let Verb::Serve(args) = &arguments.verb
        && let Some(count) = serve::threads(args)
    {
        threads.worker_threads(count);
    }
    let runtime = match threads.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&anyhow::Error::new(error).context("no threads can be had")),
    };
    let code = runtime.block_on(act(arguments));
    // Work that blocks a thread, and that nobody waits for any more, must not hold up the end.
    runtime.shutdown_timeout(LEFT_BEHIND_WAIT);
    code
}

async fn act(arguments: Arguments) -> ExitCode {
    let Arguments { globals, verb } = arguments;
    let done = match verb {
        Verb::Up(up) => serve::up(up).await,
        Verb::Serve(only) => serve::serve(only).await,
        Verb::Backup(verb) => backup::act(verb).await,
        Verb::Agent(agent) => serve::agent(agent, globals.server()).await,
        Verb::Client(command) => {
            let program = Arguments::command();
            return match embedded::client(*command, &globals, program).await {
                Ok(exit) => exit.into(),
                Err(error) => refuse(&error),
            };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

/// Says what is wrong, with all its causes.
#[expect(clippy::print_stderr, reason = "the last words of the process")]
fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(2)
}
