//! How an agent is run: where the control plane is and what this process is called.

use std::env;
use std::time::Duration;

use crate::error::Error;

/// The environment variable that names the control plane's addresses.
pub const URL_VARIABLE: &str = "ORCHESTRATOR_URL";
/// An earlier name of it, which is still read.
const URL_VARIABLE_BEFORE: &str = "ORCHESTRATOR_SERVER";
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
        let named = |name| env::var(name).ok().filter(|addresses: &String| !addresses.is_empty());
        let variable = named(URL_VARIABLE).or_else(|| named(URL_VARIABLE_BEFORE));
        Self::read(env::args().skip(1), variable)
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
                inline
                    .clone()
                    .or_else(|| arguments.next())
                    .ok_or_else(|| Error::Argument(format!("{name} wants a value")))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], variable: Option<&str>, expect: Result<&[&str], &str>) {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let read = RunConfig::read(arguments, variable.map(str::to_owned));
        match (read, expect) {
            (Ok(config), Ok(servers)) => assert_eq!(config.servers, servers),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (read, _) => panic!("{read:?}"),
        }
    }

    #[test]
    fn the_command_line_goes_before_the_environment_and_that_before_the_default() {
        check(&[], None, Ok(&["http://127.0.0.1:8000"]));
        check(&[], Some(""), Ok(&["http://127.0.0.1:8000"]));
        check(&[], Some("http://a:1, http://b:2,"), Ok(&["http://a:1", "http://b:2"]));
        check(&["--server", "http://c:3"], Some("http://a:1"), Ok(&["http://c:3"]));
        check(&["--server=http://c:3,http://d:4"], None, Ok(&["http://c:3", "http://d:4"]));
    }

    #[test]
    fn what_is_not_known_or_not_whole_is_refused() {
        check(&["--server"], None, Err("--server wants a value"));
        check(&["--port", "1"], None, Err("`--port` is not known; usage: [--server URL"));
    }
}
