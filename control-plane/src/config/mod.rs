//! How the control plane is set up: flag over environment over file over default.
//!
//! All that is wrong is said at once, with where it comes from and what to do. Each value knows
//! its source, so that `--check-config` can show it.

mod key;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

pub use key::{KEYS, Key};
pub use secret::Secret;

/// What stands before the names of environment variables.
const PREFIX: &str = "ORCHESTRATOR_";
/// Variables of the client commands and of agents, which share the prefix.
const OTHERS: [&str; 4] = ["server", "url", "workspace", "config"];
/// The largest configuration file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How like a known key a name must be to count as a mistyped one.
const LIKENESS_MIN: f64 = 0.85;

/// How the control plane is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens; `None`: it is reached within the process alone.
    pub listen: Option<SocketAddr>,
    /// It may listen on others than loopback addresses.
    pub insecure: bool,
    /// The folder of the embedded database.
    pub data_dir: PathBuf,
    /// The database in place of the embedded one.
    pub database_url: Option<Secret>,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where notifications to `slack` go.
    pub slack_webhook_url: Option<Secret>,
    /// Where notifications to other channels go.
    pub notify_webhooks: BTreeMap<String, Secret>,
    /// How long a task in flight waits for its agent after a restart.
    pub grace_after_adoption: Duration,
    /// How many runs may be in memory before new starts are refused.
    pub max_active_runs: usize,
    /// Where other replicas reach this one, HOST:PORT, when that is not where it listens.
    pub advertise: Option<String>,
    /// By which replicas on several machines know one another.
    pub peer_secret: Option<Secret>,
    /// How long a replica must be silent before the others take over its runs.
    pub replica_lease: Duration,
    /// How long a run only waits before it is let go from memory.
    pub park_after: Duration,
    /// How long a question to people may be open before they are reminded.
    pub escalation_due: Duration,
    /// The channels that are told when a person is needed.
    pub escalation_channels: Vec<String>,
    /// A rollback that a person plans is executed only once somebody has approved it.
    pub rollback_approval: bool,
    /// How long finished runs are kept.
    pub retention_age: Duration,
    /// How many finished runs are kept.
    pub retention_runs: u64,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            listen: None,
            insecure: false,
            data_dir: PathBuf::new(),
            database_url: None,
            log: String::new(),
            log_format: LogFormat::Text,
            slack_webhook_url: None,
            notify_webhooks: BTreeMap::new(),
            grace_after_adoption: Duration::ZERO,
            max_active_runs: 0,
            advertise: None,
            peer_secret: None,
            replica_lease: Duration::ZERO,
            park_after: Duration::ZERO,
            escalation_due: Duration::ZERO,
            escalation_channels: Vec::new(),
            rollback_approval: false,
            retention_age: Duration::ZERO,
            retention_runs: 0,
        };
        for key in KEYS {
            if let Some(text) = key.default {
                (key.read)(&mut config, text).expect("a test reads every default");
            }
        }
        config
    }
}

impl Config {
    /// All webhooks by channel.
    #[must_use]
    pub fn webhooks(&self) -> BTreeMap<String, String> {
        let slack = self.slack_webhook_url.iter().map(|url| ("slack".to_owned(), url));
        let others = self.notify_webhooks.iter().map(|(name, url)| (name.clone(), url));
        others.chain(slack).map(|(name, url)| (name, url.expose().to_owned())).collect()
    }

    /// Whether everything is kept by SQLite, within this process.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.database_url.as_ref().is_none_or(|url| url.expose().starts_with("sqlite:"))
    }

    /// Where everything is kept, for people: the database without its password, or the folder.
    #[must_use]
    pub fn kept_in(&self) -> String {
        match &self.database_url {
            Some(url) => secret::mask_database(url.expose()),
            None => self.data_dir.display().to_string(),
        }
    }
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Values given on the command line, by key (`data_dir`, not `--data-dir`).
    pub flags: Vec<(String, String)>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// The file, when one is named.
    pub file: Option<PathBuf>,
}

/// A configuration with where each value comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Things worth a line in the log.
    pub warnings: Vec<String>,
    shown: Vec<Shown>,
}

#[derive(Clone, Debug)]
struct Shown {
    name: &'static str,
    value: Option<String>,
    source: String,
}

impl Loaded {
    /// Each value with its source, one a line; secrets masked. It is TOML.
    #[must_use]
    pub fn render(&self) -> String {
        let mut lines = String::new();
        for Shown { name, value, source } in &self.shown {
            let line = match value {
                Some(value) => format!("{name} = {value:?}"),
                None => format!("# {name} is not set"),
            };
            lines.push_str(&format!("{line:<56} # {source}\n"));
        }
        lines
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    source: String,
    message: String,
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong:")?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {}: {}", problem.source, problem.message))
    }
}

impl std::error::Error for Errors {}

/// Reads the configuration.
///
/// # Errors
/// Everything that is wrong, with its source and what to do.
pub fn load(sources: &Sources) -> Result<Loaded, Errors> {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut figment = Figment::new();
    for key in KEYS {
        if let Some(default) = key.default {
            figment = figment.merge(Text::new("default", key.name, default));
        }
    }
    if let Some(path) = &sources.file {
        match file(path) {
            Ok(provider) => figment = figment.merge(provider),
            Err(message) => {
                problems.push(Problem { source: path.display().to_string(), message });
            }
        }
    }
    for (variable, value) in &sources.environment {
        let Some(name) = variable.strip_prefix(PREFIX).map(str::to_ascii_lowercase) else {
            continue;
        };
        let source = format!("environment variable {variable}");
        match KEYS.iter().find(|key| key.name == name) {
            Some(_) => figment = figment.merge(Text::new(&source, &name, value)),
            None => match mistyped(&name) {
                Some(meant) => {
                    let variable = format!("{PREFIX}{}", meant.to_ascii_uppercase());
                    let message = format!("is not known; did you mean {variable}?");
                    problems.push(Problem { source, message });
                }
                None if is_foreign(&name) => {}
                None => warnings.push(format!("{source} is not known and changes nothing")),
            },
        }
    }
    for (name, value) in &sources.flags {
        let source = format!("flag --{}", name.replace('_', "-"));
        figment = figment.merge(Text::new(&source, name, value));
    }
    unknown_keys(&figment, &mut problems);
    let (config, shown) = read(&figment, &mut problems);
    if problems.is_empty() { Ok(Loaded { config, warnings, shown }) } else { Err(Errors(problems)) }
}

/// Reads every key; what is wrong goes to `problems`.
fn read(figment: &Figment, problems: &mut Vec<Problem>) -> (Config, Vec<Shown>) {
    let mut config = Config::default();
    let mut shown = Vec::new();
    for key in KEYS {
        let Ok(value) = figment.find_value(key.name) else {
            let source = "not given".to_owned();
            shown.push(Shown { name: key.name, value: None, source });
            continue;
        };
        let source = source_of(figment, &value);
        let read = text_of(&value).and_then(|text| {
            (key.read)(&mut config, &text)?;
            Ok(text)
        });
        match read {
            Ok(text) => {
                shown.push(Shown { name: key.name, value: Some((key.show)(&text)), source });
            }
            Err(message) => {
                let message = format!("{} {message}", key.name);
                problems.push(Problem { source, message });
            }
        }
    }
    if let Some(listen) = config.listen
        && !config.insecure
        && !listen.ip().to_canonical().is_loopback()
    {
        let source = figment.find_value("listen");
        let source = source.map_or_else(|_| String::new(), |value| source_of(figment, &value));
        let message = format!(
            "listen {listen} can be reached from other machines and there is no authentication; \
             listen on 127.0.0.1, or say insecure if everybody who reaches it may use it"
        );
        problems.push(Problem { source, message });
    }
    (config, shown)
}

fn unknown_keys(figment: &Figment, problems: &mut Vec<Problem>) {
    let all = figment.data().unwrap_or_default();
    for (name, value) in all.values().flatten() {
        if KEYS.iter().any(|key| key.name == name) {
            continue;
        }
        let hint = match mistyped(name) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                format!("there are {}", names.join(", "))
            }
        };
        let message = format!("`{name}` is not known; {hint}");
        problems.push(Problem { source: source_of(figment, value), message });
    }
}

fn source_of(figment: &Figment, value: &Value) -> String {
    let metadata = figment.get_metadata(value.tag());
    metadata.map_or_else(|| "configuration".to_owned(), |metadata| metadata.name.to_string())
}

/// A value as text; a table becomes `NAME=VALUE` pairs.
fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text.clone()),
        Value::Bool(_, boolean) => Ok(boolean.to_string()),
        Value::Num(..) => match (value.to_i128(), value.to_u128(), value.to_f64()) {
            (Some(number), ..) => Ok(number.to_string()),
            (_, Some(number), _) => Ok(number.to_string()),
            (.., Some(number)) => Ok(number.to_string()),
            _ => Err("must be text".to_owned()),
        },
        Value::Dict(_, dict) => {
            let pair = |(name, value): (&String, &Value)| Ok(format!("{name}={}", text_of(value)?));
            let pairs: Result<Vec<String>, String> = dict.iter().map(pair).collect();
            Ok(pairs?.join(","))
        }
        Value::Char(_, char) => Ok(char.to_string()),
        Value::Empty(..) | Value::Array(..) => Err("must be text, not a list".to_owned()),
    }
}

fn mistyped(name: &str) -> Option<&'static str> {
    if is_foreign(name) {
        return None;
    }
    let likeness = |key: &Key| strsim::jaro_winkler(key.name, name);
    let nearest = KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(nearest) >= LIKENESS_MIN).then_some(nearest.name)
}

/// Variables that others set: the client commands, agents, and Kubernetes for a service that is
/// called `orchestrator`.
fn is_foreign(name: &str) -> bool {
    OTHERS.contains(&name)
        || name.starts_with("test_")
        || name.starts_with("service_")
        || name == "port"
        || name.starts_with("port_")
}

fn file(path: &std::path::Path) -> Result<Tables, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("has {size} bytes; a configuration has at most {FILE_BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let data = Toml::string(&text).data().map_err(|error| format!("is not TOML: {error}"))?;
    let dict = data.into_values().next().unwrap_or_default();
    Ok(Tables { source: format!("file {}", path.display()), dict })
}

/// One value from one source.
struct Text {
    source: String,
    name: String,
    value: String,
}

impl Text {
    fn new(source: &str, name: &str, value: &str) -> Self {
        Self { source: source.to_owned(), name: name.to_owned(), value: value.to_owned() }
    }
}

impl Provider for Text {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = Dict::from([(self.name.clone(), Value::from(self.value.clone()))]);
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// The values of a file.
struct Tables {
    source: String,
    dict: Dict,
}

impl Provider for Tables {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn sources(
        flags: &[(&str, &str)],
        environment: &[(&str, &str)],
        file: &str,
    ) -> (Sources, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orchestrator.toml");
        std::fs::write(&path, file).unwrap();
        let (flags, environment) = (pairs(flags), pairs(environment));
        (Sources { flags, environment, file: Some(path) }, folder)
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let file = "listen = '127.0.0.1:3'\nretention_runs = 7\nlog = 'warn'";
        let environment =
            [("ORCHESTRATOR_LISTEN", "127.0.0.1:2"), ("ORCHESTRATOR_LOG", "007"), ("HOME", "/")];
        let (sources, _folder) = sources(&[("listen", "localhost:1")], &environment, file);
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.config.listen.unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(loaded.config.log, "007", "text stays as it was written");
        assert_eq!(loaded.config.retention_runs, 7);
        assert_eq!(loaded.config.grace_after_adoption, Duration::from_secs(3));
        let shown = loaded.render();
        let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("listen").ends_with("# flag --listen"), "{shown}");
        assert!(line("log ").ends_with("# environment variable ORCHESTRATOR_LOG"), "{shown}");
        assert!(line("retention_runs").contains("orchestrator.toml"), "{shown}");
        assert!(line("data_dir").ends_with("# default"), "{shown}");
        assert!(line("# database_url").ends_with("# not given"), "{shown}");
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_source() {
        let file = "retention_dayz = 3\nlog_format = 'xml'\n[colour]\nx = 1";
        let environment = [("ORCHESTRATOR_LISTN", "x"), ("ORCHESTRATOR_RETENTION_RUNS", "many")];
        let flags = [("listen", "nowhere"), ("grace_after_adoption", "3")];
        let (sources, _folder) = sources(&flags, &environment, file);
        let said = load(&sources).unwrap_err().to_string();
        for part in [
            "`retention_dayz` is not known; did you mean `retention_days`?",
            "log_format must be `text` or `json`, found `xml`",
            "`colour` is not known; there are listen",
            "environment variable ORCHESTRATOR_LISTN: is not known; did you mean ORCHESTRATOR_LISTEN?",
            "environment variable ORCHESTRATOR_RETENTION_RUNS: retention_runs must be a whole number",
            "flag --listen: listen must be an IP address and a port",
            "flag --grace-after-adoption: grace_after_adoption must be a duration",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
        assert_eq!(said.lines().count(), 8, "{said}");
    }

    #[test]
    fn secrets_are_never_shown() {
        let file = "slack_webhook_url = 'https://hooks.example/T0/secret1'\n\
            peer_secret = 'secret4-secret4-secret4'\n\
            [notify_webhooks]\nops = 'https://ops.example/secret2'";
        let environment = [("ORCHESTRATOR_DATABASE_URL", "postgres://me:secret3@db/orchestrator")];
        let (sources, _folder) = sources(&[], &environment, file);
        let loaded = load(&sources).unwrap();
        let shown = format!("{} {loaded:?}", loaded.render());
        for secret in 1..=4 {
            assert!(!shown.contains(&format!("secret{secret}")), "{shown}");
        }
        let webhooks = loaded.config.webhooks();
        assert_eq!(webhooks["slack"], "https://hooks.example/T0/secret1");
        assert_eq!(webhooks["ops"], "https://ops.example/secret2");
    }

    #[test]
    fn an_address_for_others_must_be_asked_for() {
        let (sources_, _folder) = sources(&[("listen", "0.0.0.0:8000")], &[], "");
        let said = load(&sources_).unwrap_err().to_string();
        assert!(said.contains("no authentication"), "{said}");
        let (sources_, _folder) =
            sources(&[("listen", "0.0.0.0:8000"), ("insecure", "true")], &[], "");
        assert!(load(&sources_).is_ok());
        let (sources_, _folder) = sources(&[("listen", "[::1]:8000")], &[], "");
        assert!(load(&sources_).is_ok());
    }

    #[test]
    fn what_others_set_is_no_error() {
        let environment = [
            ("ORCHESTRATOR_SERVER", "x"),
            ("ORCHESTRATOR_PORT_8000_TCP", "x"),
            ("ORCHESTRATOR_SERVICE_HOST", "x"),
            ("ORCHESTRATOR_HOMEPAGE", "x"),
        ];
        let (sources, _folder) = sources(&[], &environment, "");
        assert_eq!(load(&sources).unwrap().warnings.len(), 1);
    }

    #[test]
    fn a_file_that_is_not_there_or_not_toml_is_an_error() {
        let missing = Sources { file: Some("/no/such/file.toml".into()), ..Sources::default() };
        assert!(load(&missing).unwrap_err().to_string().contains("cannot be read"));
        let (broken, _folder) = sources(&[], &[], "listen = ");
        assert!(load(&broken).unwrap_err().to_string().contains("is not TOML"));
    }
}
