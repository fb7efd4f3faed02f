//! Every key of the configuration: its default, what it is for, and how its text is read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::limits;

use super::secret::{Secret, mask_database, mask_webhook};
use super::{Config, LogFormat};

/// A key.
pub struct Key {
    /// Its name in the file; with `ORCHESTRATOR_` before it and in capitals, in the environment;
    /// with `-` for `_`, on the command line.
    pub name: &'static str,
    /// Its value when nothing gives one; `None`: it is then unset.
    pub default: Option<&'static str>,
    /// What it is for.
    pub about: &'static str,
    /// Reads a value into the configuration; says what is wrong with it and what to do.
    pub(super) read: fn(&mut Config, &str) -> Result<(), String>,
    /// The value as it may be shown.
    pub(super) show: fn(&str) -> String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All keys.
pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        default: Some("127.0.0.1:8000"),
        about: "address and port to listen on",
        read: |config, text| {
            config.listen = Some(address(text)?);
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "insecure",
        default: Some("false"),
        about: "listen on others than loopback addresses although there is no authentication",
        read: |config, text| {
            config.insecure = boolean(text)?;
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "data_dir",
        default: Some(".orchestrator"),
        about: "folder of the embedded database, used without database_url",
        read: |config, text| {
            if text.is_empty() {
                return Err("must be a folder; leave it out for the default".to_owned());
            }
            config.data_dir = PathBuf::from(text);
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "database_url",
        default: None,
        about: "database in place of the embedded one: postgres://USER@HOST/DATABASE or sqlite:FILE",
        read: |config, text| {
            let known = ["postgres://", "postgresql://", "sqlite:"];
            if !known.iter().any(|scheme| text.starts_with(scheme)) {
                return Err("must be postgres://USER@HOST/DATABASE or sqlite:FILE".to_owned());
            }
            config.database_url = Some(Secret::new(text));
            Ok(())
        },
        show: mask_database,
    },
    Key {
        name: "log",
        default: Some("info"),
        about: "what to log: a level, or a filter as `info,control_plane=debug`",
        read: |config, text| {
            EnvFilter::try_new(text).map_err(|error| {
                format!("must be a level or a filter as `info,control_plane=debug`: {error}")
            })?;
            config.log = text.to_owned();
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "log_format",
        default: Some("text"),
        about: "`text` for people or `json` for programs",
        read: |config, text| {
            config.log_format = match text {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => return Err(format!("must be `text` or `json`, found `{other}`")),
            };
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "slack_webhook_url",
        default: None,
        about: "webhook for notifications to `slack`",
        read: |config, text| {
            config.slack_webhook_url = Some(webhook(text)?);
            Ok(())
        },
        show: mask_webhook,
    },
    Key {
        name: "notify_webhooks",
        default: None,
        about: "Slack-compatible webhooks of other channels: `NAME=URL`, joined by commas",
        read: |config, text| {
            for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                let (name, url) = entry.split_once('=').ok_or("must be `NAME=URL`")?;
                config.notify_webhooks.insert(name.trim().to_owned(), webhook(url.trim())?);
            }
            Ok(())
        },
        show: |text| {
            let entries = text.split(',').filter_map(|entry| entry.split_once('='));
            let shown = entries.map(|(name, url)| format!("{name}={}", mask_webhook(url)));
            shown.collect::<Vec<_>>().join(",")
        },
    },
    Key {
        name: "grace_after_adoption",
        default: Some("3s"),
        about: "how long, after a restart, a task in flight waits for the agent that had it",
        read: |config, text| {
            config.grace_after_adoption = duration(text)?;
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "max_active_runs",
        default: Some("50000"),
        about: "how many runs may be in memory before new starts are refused for a while",
        read: |config, text| {
            let max = u64::try_from(limits::ACTIVE_RUNS_CONFIGURED_MAX).unwrap_or(u64::MAX);
            let number = number(text, 1, max)?;
            config.max_active_runs = usize::try_from(number).unwrap_or(usize::MAX);
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "advertise",
        default: None,
        about: "HOST:PORT at which other replicas on the same database reach this one; default: \
                listen, where that is one address",
        read: |config, text| {
            config.advertise = Some(host_and_port(text)?);
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "peer_secret",
        default: None,
        about: "by which replicas on several machines know one another; the same for all",
        read: |config, text| {
            if text.len() < 16 {
                return Err("must have 16 characters or more".to_owned());
            }
            config.peer_secret = Some(Secret::new(text));
            Ok(())
        },
        show: |_| "***".to_owned(),
    },
    Key {
        name: "replica_lease",
        default: Some("5s"),
        about: "how long a replica must be silent before the others take over its runs",
        read: |config, text| {
            let lease = duration(text)?;
            if lease < Duration::from_secs(4) || lease > Duration::from_secs(300) {
                return Err(format!("must be from 4s to 5m, found `{text}`"));
            }
            config.replica_lease = lease;
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "park_after",
        default: Some("60s"),
        about: "how long a run only waits before it is let go from memory; 0s: at once",
        read: |config, text| {
            config.park_after = duration(text)?;
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "escalation_due",
        default: Some("1h"),
        about: "how long a question to people may be open before they are reminded",
        read: |config, text| {
            config.escalation_due = duration(text)?;
            if config.escalation_due < limits::ESCALATIONS_LOOK_EVERY {
                let least = limits::ESCALATIONS_LOOK_EVERY.as_secs();
                return Err(format!("must be at least {least}s, found `{text}`"));
            }
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "escalation_channels",
        default: None,
        about: "channels that are told when a person is needed, as `slack,oncall`",
        read: |config, text| {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            config.escalation_channels = names.map(str::to_owned).collect();
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "rollback_approval",
        default: Some("false"),
        about: "whether every rollback that is planned has to be approved before it is executed",
        read: |config, text| {
            config.rollback_approval = boolean(text)?;
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "retention_days",
        default: Some("30"),
        about: "how many days finished runs are kept",
        read: |config, text| {
            let days: u64 = number(text, 1, 36_500)?;
            config.retention_age = Duration::from_secs(days * 24 * 3600);
            Ok(())
        },
        show: plain,
    },
    Key {
        name: "retention_runs",
        default: Some("1000000"),
        about: "how many finished runs are kept, the newest",
        read: |config, text| {
            config.retention_runs = number(text, 1, u64::MAX / 2)?;
            Ok(())
        },
        show: plain,
    },
];

fn plain(text: &str) -> String {
    text.to_owned()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let spelled = match text.split_once(':') {
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        _ => text.to_owned(),
    };
    spelled
        .parse()
        .map_err(|_| format!("must be an IP address and a port as 127.0.0.1:8000, found `{text}`"))
}

fn host_and_port(text: &str) -> Result<String, String> {
    let is_host = |host: &str| !host.is_empty() && !host.contains(['/', '@', ' ']);
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("must be a host and a port as 10.0.0.7:8000, found `{text}`")),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("must be `true` or `false`, found `{text}`")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    engine::definition::parse_duration(text)
        .map_err(|error| format!("must be a duration as `3s` or `1m30s`: {error}"))
}

fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let wrong = || format!("must be a whole number from {min} to {max}, found `{text}`");
    let number: u64 = text.replace('_', "").parse().map_err(|_| wrong())?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(wrong()) }
}

fn webhook(text: &str) -> Result<Secret, String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(Secret::new(text));
    }
    // The text may be half a secret, so it is not repeated.
    Err("must be an address that begins with https:// or http://".to_owned())
}
