//! `metrics`.

use std::time::Duration;

use clap::Args;
use contracts::v1::{ActionMetrics, GetAgentMetricsRequest};

use super::Session;
use crate::connection::agents;
use crate::error::Error;
use crate::exit::Exit;
use crate::table::Table;
use crate::{json, moment};

const RANGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Shows figures of agents.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  orchestrator metrics
  orchestrator metrics --agent security-scanner --range 15m
  orchestrator metrics -o json | jq '.actions[] | select(.failures != \"0\")'")]
pub struct Metrics {
    /// A type, alias or id; all where it is left out
    #[arg(long)]
    agent: Option<String>,
    /// How far back, as `15m` or `1h30m`; at most 24h
    #[arg(long, default_value = "1h", value_parser = duration)]
    range: Duration,
}

pub(super) async fn run(metrics: Metrics, session: &mut Session) -> Result<Exit, Error> {
    let request = GetAgentMetricsRequest {
        agent: metrics.agent.unwrap_or_default(),
        range: prost_types::Duration::try_from(metrics.range).ok(),
    };
    let response = session
        .client
        .call(async |channel| agents(channel).get_agent_metrics(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("GetAgentMetricsResponse", &response))?;
        return Ok(Exit::Success);
    }
    let range = moment::duration(moment::span(response.range.as_ref()).unwrap_or(metrics.range));
    if response.actions.is_empty() {
        session.output.note(&format!(
            "no agent did anything within {range}; try a longer `--range`, or see \
             `orchestrator agents list`"
        ));
        return Ok(Exit::Success);
    }
    let headings =
        ["AGENT", "ACTION", "DONE", "FAILED", "SUCCESS", "P50", "P99", "QUEUED", "RUNNING"];
    let mut table = Table::new(&headings, &session.output);
    for action in &response.actions {
        let latency = |span: Option<&prost_types::Duration>| {
            moment::span(span).map_or_else(|| "-".to_owned(), moment::duration)
        };
        table.row([
            action.agent_type.as_str(),
            &action.action,
            &action.executions.to_string(),
            &action.failures.to_string(),
            &success(action),
            &latency(action.latency_p50.as_ref()),
            &latency(action.latency_p99.as_ref()),
            &action.queued.to_string(),
            &action.running.to_string(),
        ]);
    }
    session.output.data(&table.text())?;
    Ok(Exit::Success)
}

/// The share that went well, in tenths of a percent.
fn success(action: &ActionMetrics) -> String {
    if action.executions <= 0 {
        return "-".to_owned();
    }
    let well = (action.executions - action.failures).clamp(0, action.executions);
    let tenths = i128::from(well) * 1000 / i128::from(action.executions);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// Numbers with units, as workflows write durations: `1h30m`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write it as `15m` or `1h30m`");
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let letters =
            behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, behind) = behind.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = behind;
    }
    if total.is_zero() {
        return Err(wrong());
    }
    if total > RANGE_MAX {
        return Err(format!("`{text}` is too long; figures are kept for 24h"));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1d"), Ok(RANGE_MAX));
        for wrong in ["", "1", "25h", "h", "1x", "0s", "-1h", "1.5h", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_share_of_success_has_a_tenth() {
        let of = |executions, failures| {
            success(&ActionMetrics { executions, failures, ..Default::default() })
        };
        assert_eq!(of(3, 1), "66.6%");
        assert_eq!(of(3, 0), "100.0%");
        assert_eq!(of(0, 0), "-");
    }
}
