//! Whole commands against a server in this process.

mod execute;
mod fake;
mod others;
mod watch;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use tokio::sync::mpsc;

use crate::arguments::Globals;
use crate::commands::{self, Command};
use crate::connection::Connection;
use crate::exit::Exit;
use crate::output::Output;

const DEADLINE: Duration = Duration::from_secs(60);

/// The command line as the binary has it.
#[derive(Parser)]
#[command(name = "orchestrator")]
struct Program {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What came of a command.
#[derive(Debug)]
struct Outcome {
    exit: Exit,
    stdout: String,
    stderr: String,
}

/// Runs a command against the servers at these addresses.
async fn orchestrator(servers: &str, arguments: &[&str]) -> Outcome {
    run(Connection::Url(servers.to_owned()), arguments, None).await
}

async fn run(
    connection: Connection,
    arguments: &[&str],
    interrupts: Option<mpsc::Receiver<()>>,
) -> Outcome {
    let program = Program::try_parse_from(["orchestrator"].iter().chain(arguments))
        .unwrap_or_else(|error| panic!("{error}"));
    let (stdout, stderr) = (Buffer::default(), Buffer::default());
    let output = Output::into(stdout.clone(), stderr.clone(), program.globals.output);
    let running = commands::run(program.command, connection, output, interrupts);
    let exit = tokio::time::timeout(DEADLINE, running)
        .await
        .unwrap_or_else(|_| panic!("the command hangs; stderr: {}", stderr.text()));
    Outcome { exit, stdout: stdout.text(), stderr: stderr.text() }
}

/// A writer whose text can be read.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    fn check(command: &clap::Command, path: &str) {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            assert!(inner.get_about().is_some(), "{path} has no description");
            if inner.get_subcommands().next().is_none() {
                let help = inner.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} has no example");
            }
            check(inner, &path);
        }
    }
    let program = <Program as clap::CommandFactory>::command();
    program.clone().debug_assert();
    check(&program, "orchestrator");
}

#[test]
fn only_execute_without_a_server_wants_its_own() {
    let wants = |arguments: &[&str]| {
        let program = Program::try_parse_from(["orchestrator"].iter().chain(arguments))
            .unwrap_or_else(|error| panic!("{error}"));
        program.command.wants_embedded(&program.globals)
    };
    assert!(wants(&["workflows", "execute", "a.yml"]));
    assert!(!wants(&["workflows", "execute", "a.yml", "--server", "http://x:1"]));
    assert!(!wants(&["workflows", "validate", "a.yml"]));
    assert!(!wants(&["runs", "list"]));
}

#[test]
fn completion_knows_all_commands() {
    let program = Program::try_parse_from(["orchestrator", "completion", "bash"])
        .unwrap_or_else(|error| panic!("{error}"));
    let Command::Completion(completion) = program.command else { panic!("it is completion") };
    let stdout = Buffer::default();
    let mut output = Output::into(stdout.clone(), io::sink(), program.globals.output);
    let whole = <Program as clap::CommandFactory>::command();
    assert_eq!(commands::complete(&completion, whole, &mut output), Exit::Success);
    assert!(stdout.text().contains("orchestrator__subcmd__dead__subcmd__letters"));
}

#[tokio::test]
async fn stdout_that_is_closed_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let server = fake::Fake::new().serve().await;
    let program = Program::try_parse_from(["orchestrator", "workflows", "list", "-o", "json"])
        .unwrap_or_else(|error| panic!("{error}"));
    let output = Output::into(Closed, io::sink(), program.globals.output);
    let connection = Connection::Url(server.url.clone());
    let exit = commands::run(program.command, connection, output, None).await;
    assert_eq!(exit, Exit::Success);
}
