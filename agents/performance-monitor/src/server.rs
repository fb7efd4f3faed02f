//! Starts a project's server and waits until it is healthy.

use std::io::ErrorKind;

use project_files::{Manifest, Project};
use tokio::time::{Instant, sleep, timeout_at};

use crate::performance::Error;
use crate::process::Process;
use crate::target::Target;
use crate::{limits, load};

/// A server that answers.
#[derive(Debug)]
pub struct Running {
    /// The server's process.
    pub process: Process,
    /// Its health path.
    pub target: Target,
}

/// Starts it on a port of the system's choice, and waits for its health path.
pub async fn start(project: &Project, manifest: &Manifest) -> Result<Running, Error> {
    let until = Instant::now() + limits::START_TIME_MAX;
    let port = manifest.port_env.as_deref().unwrap_or("PORT");
    let variables = [(port, "0"), ("PYTHONDONTWRITEBYTECODE", "1")];
    let started = Process::start(&manifest.start, project.root(), &variables);
    let mut process = started.map_err(|error| not_started(manifest, &error))?;
    match timeout_at(until, ready(&mut process, manifest)).await {
        Ok(Ok(target)) => Ok(Running { process, target }),
        Ok(Err(error)) => {
            process.stop().await;
            Err(error)
        }
        Err(_) => {
            let tail = process.printed().tail();
            process.stop().await;
            let seconds = limits::START_TIME_MAX.as_secs();
            Err(Error::NotReady(format!(
                "the server was not ready in {seconds} s; it must print \
                 `listening on http://HOST:PORT` and answer its health path; it printed: {tail}"
            )))
        }
    }
}

/// Why a command could not be started, for people.
pub fn not_started(manifest: &Manifest, error: &std::io::Error) -> Error {
    let program = manifest.start.first().map_or("", String::as_str);
    let remedy = match error.kind() {
        ErrorKind::NotFound => "it is not installed, or not in PATH".to_owned(),
        ErrorKind::PermissionDenied => "it is not executable".to_owned(),
        _ => error.to_string(),
    };
    Error::Start(format!("`{program}`, which starts `{}`, cannot be run: {remedy}", manifest.name))
}

async fn ready(process: &mut Process, manifest: &Manifest) -> Result<Target, Error> {
    let printed = process.printed().clone();
    let address = tokio::select! {
        address = printed.address() => address,
        // Its output may end a moment after itself.
        _ = process.wait() => printed.address().await,
    };
    let Some(address) = address else {
        return Err(ended(process).await);
    };
    let target = Target::resolve(&address, false)
        .await
        .map_err(|error| Error::Start(format!("the server prints a wrong address: {error}")))?;
    let path = manifest.health_path.as_deref().unwrap_or("/");
    let target = target
        .with_path(path)
        .map_err(|error| Error::Start(format!("the manifest's health_{error}")))?;
    loop {
        tokio::select! {
            healthy = load::is_healthy(&target) => {
                if healthy {
                    return Ok(target);
                }
            }
            _ = process.wait() => return Err(ended(process).await),
        }
        sleep(limits::HEALTH_INTERVAL).await;
    }
}

async fn ended(process: &mut Process) -> Error {
    let status = match process.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    process.printed().finished().await;
    let tail = process.printed().tail();
    Error::Start(format!("the server ended before it was ready ({status}); it printed: {tail}"))
}
