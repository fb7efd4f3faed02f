//! What a server counts itself, from its `/metrics`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The most that is read of one.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How many commits a server has made, and of how many transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commits {
    pub(crate) commits: u64,
    pub(crate) transitions: u64,
}

impl Commits {
    /// Asks the server at `url`.
    pub(crate) async fn read(url: &str) -> anyhow::Result<Self> {
        let asked = tokio::time::timeout(WAIT_MAX, ask(url)).await;
        Self::of(&asked.context("/metrics gave no answer")??)
    }

    fn of(text: &str) -> anyhow::Result<Self> {
        let count = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.split_once(' '));
            let value = values.find(|(found, _)| *found == name).map(|(_, value)| value.trim());
            value.and_then(|value| value.parse().ok()).with_context(|| format!("no {name}"))
        };
        Ok(Self {
            commits: count("orchestrator_commits_total")?,
            transitions: count("orchestrator_transitions_total")?,
        })
    }

    /// Transitions in a commit since `before`, on the average; one at least.
    pub(crate) fn batch_since(&self, before: &Self) -> f64 {
        let commits = self.commits.saturating_sub(before.commits).max(1) as f64;
        (self.transitions.saturating_sub(before.transitions) as f64 / commits).max(1.0)
    }
}

async fn ask(url: &str) -> anyhow::Result<String> {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(BYTES_MAX).read_to_string(&mut answer).await?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("/metrics gave no answer that is HTTP");
    };
    if !head.starts_with("HTTP/1.1 200") {
        bail!("/metrics answered: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_batches_follow_from_them() {
        let text = "# TYPE orchestrator_commits_total counter\norchestrator_commits_total 10\n\n\
                    orchestrator_transitions_total 250\n";
        let before = Commits::of(text).unwrap();
        assert_eq!(before, Commits { commits: 10, transitions: 250 });
        let after = Commits { commits: 14, transitions: 1250 };
        assert_eq!(after.batch_since(&before), 250.0);
        assert_eq!(before.batch_since(&before), 1.0);
        assert!(Commits::of("orchestrator_commits_total_more 1").is_err());
    }
}
