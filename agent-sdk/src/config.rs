//! How an agent is run: where the control plane is and what this process is called.

use std::env;
use std::time::Duration;

use crate::error::Error;

/// The environment variable that names the control plane's addresses.
pub const URL_VARIABLE: &str = "ORCHESTRATOR_URL";
const URL_DEFAULT: &str = "http://127.0.0.1:8000";

/// How an agent is run.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Addresses of the control plane; any of them will do.
    pub servers: Vec<String>,
    /// The name of this process; `None` takes the agent's own, or makes one.
    pub instance: Option<String>,
    /// How long draining may take before running tasks are cancelled; `None` takes the
    /// agent's own, or has no bound.
    pub drain_timeout: Option<Duration>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { servers: vec![URL_DEFAULT.to_owned()], instance: None, drain_timeout: None }
    }
}

impl RunConfig {
    /// From the command line (`--server URL`, `--instance NAME`), else from `ORCHESTRATOR_URL`
    /// (addresses with commas between), else http://127.0.0.1:8000.
    pub fn from_env() -> Result<Self, Error> {
        Self::read(env::args().skip(1), env::var(URL_VARIABLE).ok())
    }

    pub(crate) fn read(
        arguments: impl IntoIterator<Item = String>,
        variable: Option<String>,
    ) -> Result<Self, Error> {
        let mut config = Self::default();
        let mut servers = variable.map(|text| split(&text)).unwrap_or_default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let mut value = || {
                inline.clone().or_else(|| arguments.next()).ok_or_else(|| {
                    Error::Argument(format!("{name} wants a value"))
                })
            };
            match name.as_str() {
                "--server" => servers = split(&value()?),
                "--instance" => config.instance = Some(value()?),
                _ => {
                    return Err(Error::Argument(format!(
                        "`{name}` is not known; usage: [--server URL[,URL…]] [--instance NAME] \
                         (or {URL_VARIABLE} in the environment)"
                    )));
                }
            }
        }
        if !servers.is_empty() {
            config.servers = servers;
        }
        Ok(config)
    }
}

fn split(addresses: &str) -> Vec<String> {
    addresses
        .split(',')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect()
}
