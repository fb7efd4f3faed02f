//! `completion`.

use clap::Args;
use clap_complete::Shell;

use crate::exit::Exit;
use crate::output::Output;

/// Prints a completion script.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  source <(orchestrator completion bash)
  orchestrator completion zsh > ~/.zfunc/_orchestrator
  orchestrator completion fish > ~/.config/fish/completions/orchestrator.fish")]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the script for the whole program.
pub(crate) fn complete(
    completion: &Completion,
    mut program: clap::Command,
    output: &mut Output,
) -> Exit {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(completion.shell, &mut program, name, &mut script);
    match output.data(&String::from_utf8_lossy(&script)) {
        Ok(()) => Exit::Success,
        Err(error) => {
            output.note(&format!("error: cannot write to stdout: {error}"));
            Exit::Unavailable
        }
    }
}
