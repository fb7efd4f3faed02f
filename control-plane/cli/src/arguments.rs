//! The arguments that all commands share.

use clap::{Args, ValueEnum};

const GLOBAL: &str = "Global options";

/// Arguments that every command takes.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// Where the control plane is; several addresses stand behind commas and are tried in turn
    ///
    /// Without it: http://127.0.0.1:8000, and for `workflows execute` a control plane of its own
    /// that lives as long as the command.
    #[arg(
        long,
        global = true,
        env = "ORCHESTRATOR_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = GLOBAL
    )]
    pub server: Option<String>,
    /// The earlier name of the variable, which is still read.
    #[arg(long, global = true, env = "ORCHESTRATOR_SERVER", hide = true, hide_env_values = true)]
    server_before: Option<String>,
    /// What to print on stdout
    #[arg(
        short = 'o',
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t = Format::Table,
        help_heading = GLOBAL
    )]
    pub output: Format,
    /// When to use colours; `auto` means on terminals, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t = ColorChoice::Auto,
        help_heading = GLOBAL
    )]
    pub color: ColorChoice,
}

impl Globals {
    /// The address that is named; an empty one, as of an empty variable, names none.
    pub fn server(&self) -> Option<&str> {
        let named = [&self.server, &self.server_before].into_iter().flatten();
        named.map(String::as_str).find(|server| !server.trim().is_empty())
    }
}

/// What a command prints on stdout.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text for people
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// When colours are used.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On terminals, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
