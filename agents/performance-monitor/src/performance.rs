//! The action `performance_test`: reads the input, starts what is to be measured, judges the
//! figures. It must leave no process and no file behind.

use std::collections::BTreeMap;
use std::time::Duration;

use project_files::{Manifest, Project, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::load::{self, Outcome, Plan};
use crate::target::Target;
use crate::{command, limits, server};

/// What `performance_test` takes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The project's folder, an absolute path; taken from the steps before when left out. Its
    /// server is started for the measurement.
    #[serde(default)]
    pub project_dir: Option<String>,
    /// A server that runs already, in place of the project's own; `http://` alone.
    #[serde(default)]
    pub url: Option<String>,
    /// The path to ask for; the path of `url`, or the project's health path, unless given.
    #[serde(default)]
    pub path: Option<String>,
    /// How many requests at most, 1 to 100000; 200 unless given. A project that is no server
    /// is started that often, 1 to 1000; 10 unless given.
    #[serde(default)]
    pub requests: Option<u32>,
    /// How many requests at once, 1 to 64; 8 unless given.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// How long to measure at most, such as `10s`, or seconds; 10 s unless given, at most 10
    /// minutes. Starting the server comes on top.
    #[serde(default)]
    pub duration: Option<Span>,
    /// The share of errors that passes, 0 to 1; 0.01 unless given.
    #[serde(default)]
    pub max_error_rate: Option<f64>,
    /// The 99th percentile of latency that passes, in milliseconds; not judged unless given.
    #[serde(default)]
    pub max_p99_ms: Option<f64>,
    /// Whether `url` may name another machine. Only with the consent of its owner.
    #[serde(default)]
    pub allow_remote: bool,
}

/// What `performance_test` gives.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    /// The project's folder, as it came in.
    pub project_dir: Option<String>,
    /// What was measured.
    pub kind: Kind,
    /// What was asked; null for a command.
    pub url: Option<String>,
    /// How many requests were sent, or how often the command was started.
    pub requests: u32,
    /// How many of these failed: no answer in 5 s, a status of 400 or above, or an exit status
    /// other than 0.
    pub errors: u32,
    /// The share of errors, 0 to 1.
    pub error_rate: f64,
    /// Answers per second.
    pub throughput_rps: f64,
    /// How long answers took, without the time to connect; null when there was none.
    pub latency_ms: Option<Latency>,
    /// How often each status came.
    pub statuses: BTreeMap<String, u32>,
    /// How long the measurement took, in seconds.
    pub seconds: f64,
    /// Whether the figures are within `max_error_rate` and `max_p99_ms`.
    pub passed: bool,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A server that ran already.
    Url,
    /// The project's own server.
    Server,
    /// The start of the project's command, since it is no server.
    Command,
}

/// Why there is no report.
#[derive(Debug)]
pub enum Error {
    /// The input is wrong.
    Input(String),
    /// The project cannot be started, now or later.
    Start(String),
    /// The project was not ready in time.
    NotReady(String),
    /// The system refused something.
    Io(std::io::Error),
}

/// Measures. When it is dropped, all that was started is killed.
pub async fn test(input: &Input) -> Result<Report, Error> {
    let bounds = Bounds::of(input)?;
    if let Some(url) = &input.url {
        let target = Target::resolve(url, input.allow_remote).await;
        let target = with_path(target.map_err(Error::Input)?, input)?;
        let outcome = load::run(&target, bounds.plan).await;
        return Ok(bounds.report(input, Kind::Url, Some(target.url()), outcome));
    }
    let Some(folder) = &input.project_dir else {
        let what = "project_dir: missing; name a project's folder here, or a server in `url`";
        return Err(Error::Input(what.to_owned()));
    };
    let project = Project::open(folder).map_err(|error| Error::Input(error.to_string()))?;
    let manifest = project.manifest().map_err(|error| Error::Input(error.to_string()))?;
    let manifest = manifest.filter(|manifest| !manifest.start.is_empty());
    let Some(manifest) = manifest else {
        return Err(Error::Input(format!(
            "project_dir: `{folder}` does not say in `{}` how it is started; give `url`",
            project_files::MANIFEST_NAME
        )));
    };
    if manifest.is_server() {
        measure_server(input, &bounds, &project, &manifest).await
    } else {
        let plan = bounds.command_plan(input)?;
        let outcome = command::run(&project, &manifest, plan).await?;
        Ok(bounds.report(input, Kind::Command, None, outcome))
    }
}

async fn measure_server(
    input: &Input,
    bounds: &Bounds,
    project: &Project,
    manifest: &Manifest,
) -> Result<Report, Error> {
    let running = server::start(project, manifest).await?;
    let target = match with_path(running.target.clone(), input) {
        Ok(target) => target,
        Err(error) => {
            running.process.stop().await;
            return Err(error);
        }
    };
    let outcome = load::run(&target, bounds.plan).await;
    running.process.stop().await;
    Ok(bounds.report(input, Kind::Server, Some(target.url()), outcome))
}

fn with_path(target: Target, input: &Input) -> Result<Target, Error> {
    match &input.path {
        Some(path) => target.with_path(path).map_err(Error::Input),
        None => Ok(target),
    }
}

/// What the input asks for, checked.
struct Bounds {
    plan: Plan,
    error_rate_max: f64,
    p99_ms_max: Option<f64>,
}

impl Bounds {
    fn of(input: &Input) -> Result<Self, Error> {
        let plan = Plan {
            requests: count("requests", input.requests, limits::REQUESTS, limits::REQUESTS_MAX)?,
            concurrency: count(
                "concurrency",
                input.concurrency,
                limits::CONCURRENCY,
                limits::CONCURRENCY_MAX,
            )?,
            duration: duration(input.duration.as_ref())?,
        };
        let error_rate_max = input.max_error_rate.unwrap_or(limits::ERROR_RATE);
        if !(0.0..=1.0).contains(&error_rate_max) {
            return Err(Error::Input(format!(
                "max_error_rate: {error_rate_max} is not between 0 and 1"
            )));
        }
        if let Some(p99) = input.max_p99_ms
            && p99 <= 0.0
        {
            return Err(Error::Input(format!("max_p99_ms: {p99} is not above 0")));
        }
        Ok(Self { plan, error_rate_max, p99_ms_max: input.max_p99_ms })
    }

    fn command_plan(&self, input: &Input) -> Result<Plan, Error> {
        let most = limits::COMMAND_STARTS_MAX;
        Ok(Plan {
            requests: count("requests", input.requests, limits::COMMAND_STARTS, most)?,
            ..self.plan
        })
    }

    fn report(&self, input: &Input, kind: Kind, url: Option<String>, outcome: Outcome) -> Report {
        let seconds = outcome.elapsed.as_secs_f64();
        let error_rate = f64::from(outcome.errors) / f64::from(outcome.requests.max(1));
        let answers = outcome.latencies.len();
        let latency_ms = Latency::of(outcome.latencies);
        let is_fast = match (self.p99_ms_max, latency_ms) {
            (None, _) => true,
            (Some(most), Some(latency)) => latency.p99 <= most,
            (Some(_), None) => false,
        };
        #[expect(clippy::cast_precision_loss, reason = "at most a hundred thousand")]
        let throughput_rps = answers as f64 / seconds.max(f64::EPSILON);
        let statuses = outcome.statuses.into_iter();
        Report {
            project_dir: input.project_dir.clone(),
            kind,
            url,
            requests: outcome.requests,
            errors: outcome.errors,
            error_rate,
            throughput_rps: (throughput_rps * 10.0).round() / 10.0,
            latency_ms,
            statuses: statuses.map(|(status, count)| (status.to_string(), count)).collect(),
            seconds,
            passed: outcome.requests > 0 && error_rate <= self.error_rate_max && is_fast,
        }
    }
}

fn count(field: &str, given: Option<u32>, default: u32, most: u32) -> Result<u32, Error> {
    let count = given.unwrap_or(default);
    if (1..=most).contains(&count) {
        Ok(count)
    } else {
        Err(Error::Input(format!("{field}: {count} is not between 1 and {most}")))
    }
}

fn duration(given: Option<&Span>) -> Result<Duration, Error> {
    let Some(span) = given else {
        return Ok(limits::DURATION);
    };
    let duration = span.duration().map_err(|what| Error::Input(format!("duration: {what}")))?;
    if duration > limits::DURATION_MAX {
        let most = limits::DURATION_MAX.as_secs() / 60;
        return Err(Error::Input(format!("duration: at most {most} minutes")));
    }
    Ok(duration)
}
