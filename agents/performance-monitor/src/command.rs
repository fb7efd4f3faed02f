//! Measures how long a project's command takes from start to end, for projects that are no
//! servers. Starts come one after the other: side by side they would measure each other.

use project_files::{Manifest, Project};
use tokio::time::{Instant, timeout};

use crate::limits;
use crate::load::{Outcome, Plan};
use crate::performance::Error;
use crate::process::Process;
use crate::server::not_started;

/// Starts the command once without counting, since that may build it, and then as often as
/// planned.
pub async fn run(project: &Project, manifest: &Manifest, plan: Plan) -> Result<Outcome, Error> {
    // What a build leaves must not lie in the project.
    let build = tempfile::tempdir().map_err(Error::Io)?;
    let build = build.path().to_string_lossy();
    let variables = [("CARGO_TARGET_DIR", build.as_ref()), ("PYTHONDONTWRITEBYTECODE", "1")];
    let start = || {
        Process::start(&manifest.start, project.root(), &variables)
            .map_err(|error| not_started(manifest, &error))
    };
    let mut process = start()?;
    let first = timeout(limits::COMMAND_FIRST_TIME_MAX, process.wait()).await;
    match first {
        Ok(Ok(status)) if status.success() => process.stop().await,
        Ok(Ok(status)) => {
            process.printed().finished().await;
            let tail = process.printed().tail();
            return Err(Error::Start(format!(
                "the command ended with {status}; it printed: {tail}"
            )));
        }
        Ok(Err(error)) => return Err(Error::Io(error)),
        Err(_) => {
            process.stop().await;
            return Err(Error::NotReady("the command did not end".to_owned()));
        }
    }
    let mut outcome = Outcome::default();
    let begun = Instant::now();
    while outcome.requests < plan.requests && begun.elapsed() < plan.duration {
        outcome.requests += 1;
        let started = Instant::now();
        let mut process = start()?;
        let ended = timeout(limits::COMMAND_TIME_MAX, process.wait()).await;
        match ended {
            Ok(Ok(status)) => {
                outcome.latencies.push(started.elapsed());
                outcome.errors += u32::from(!status.success());
            }
            Ok(Err(_)) | Err(_) => outcome.errors += 1,
        }
        process.stop().await;
    }
    outcome.elapsed = begun.elapsed();
    Ok(outcome)
}
