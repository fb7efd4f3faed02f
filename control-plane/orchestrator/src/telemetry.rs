//! The process's log: on stderr, as text or as JSON lines.

use tracing_subscriber::EnvFilter;

/// Starts the log. A filter that cannot be read is replaced by `info`, and said so.
pub(crate) fn start(filter: &str, json: bool) {
    let (filter, wrong) = match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(on_terminal)
        .with_writer(std::io::stderr);
    // A second start in one process changes nothing.
    let started = if json { log.json().try_init() } else { log.try_init() };
    if let (Ok(()), Some(error)) = (started, wrong) {
        tracing::warn!(%error, "the log filter cannot be read; `info` is used");
    }
}
