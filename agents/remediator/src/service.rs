//! Starting, stopping and restarting a process by its manifest, and the way back: what ran
//! before runs again, what did not is stopped, and the pid file is as it was.

use std::cell::Cell;

use agent_sdk::{Failure, JsonSchema};
use serde::{Deserialize, Serialize};

use crate::config::Restored;
use crate::files::{Content, clear_staging, hash, put, remove, restore};
use crate::process::{Manifest, Running};
use crate::tools::Tools;

/// The mode of a pid file that was not there.
const PID_FILE_MODE: u32 = 0o644;

/// What `start_process`, `stop_process` and `restart_process` take.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The process's manifest, relative to the sandbox: JSON with `command`, `pid_file`, and
    /// optionally `directory`, `environment` and `stop_timeout_seconds`.
    pub manifest: String,
}

/// What they give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Served {
    /// The manifest, relative to the sandbox.
    pub manifest: String,
    /// Whether it ran before.
    pub was_running: bool,
    /// Whether it runs now.
    pub is_running: bool,
    /// The number of the process that runs now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// What is to become of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// It runs; the one that runs already stays.
    Start,
    /// None runs.
    Stop,
    /// A new one runs.
    Restart,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    given: String,
    wish: Wish,
    manifest: Manifest,
    /// The process that ran before.
    was: Option<i32>,
    pid_file: Option<Content>,
    /// Stands in the environment of what is started under the task's key.
    mark: String,
    pid: Option<i32>,
}

/// Does it, or finds that it was done under this key.
pub fn act(tools: &Tools, key: &str, wish: Wish, input: &Service) -> Result<Served, Failure> {
    let path = tools.sandbox.path("manifest", &input.manifest)?;
    let _alone = tools.alone(&path)?;
    let is_new = Cell::new(false);
    let make = || {
        is_new.set(true);
        let manifest = Manifest::read(&tools.sandbox, "manifest", &input.manifest)?;
        clear_staging(&manifest.pid_file)?;
        Ok(Plan {
            given: input.manifest.clone(),
            wish,
            was: manifest.running()?.map(|running| running.pid),
            pid_file: Content::read(&manifest.pid_file)?,
            mark: hash(key.as_bytes()),
            pid: None,
            manifest,
        })
    };
    let plan = tools.plans.carry_out(key, make, |plan| apply(plan, is_new.get()))?;
    Ok(Served {
        manifest: plan.given,
        was_running: plan.was.is_some(),
        is_running: plan.pid.is_some(),
        pid: plan.pid,
    })
}

/// Takes back what was done under this key.
pub fn undo(tools: &Tools, key: &str, given: &str, was_done: bool) -> Result<Restored, Failure> {
    let _alone = tools.alone(&tools.sandbox.path("manifest", given)?)?;
    let restored = tools.plans.take_back(key, was_done, take_back)?;
    Ok(Restored { restored: restored.unwrap_or_default() })
}

fn apply(plan: &mut Plan, is_new: bool) -> Result<(), Failure> {
    let manifest = &plan.manifest;
    clear_staging(&manifest.pid_file)?;
    let ours = if is_new { None } else { manifest.left_under(&plan.mark)? };
    let other = manifest.running()?.filter(|running| Some(*running) != ours);
    let runs = match (plan.wish, ours, other) {
        (Wish::Start | Wish::Restart, Some(ours), _) => Some(ours),
        (Wish::Start, None, Some(other)) => Some(other),
        (Wish::Start, None, None) => Some(manifest.start(&plan.mark)?),
        (Wish::Restart, None, other) => {
            other.map(|running| manifest.stop(running)).transpose()?;
            Some(manifest.start(&plan.mark)?)
        }
        (Wish::Stop, _, other) => {
            other.map(|running| manifest.stop(running)).transpose()?;
            None
        }
    };
    match runs {
        Some(running) => write_pid(plan, running)?,
        None => remove(&manifest.pid_file)?,
    }
    plan.pid = runs.map(|running| running.pid);
    Ok(())
}

fn take_back(plan: &Plan) -> Result<bool, Failure> {
    let manifest = &plan.manifest;
    clear_staging(&manifest.pid_file)?;
    if plan.was.is_none() {
        let ours = manifest.left_under(&plan.mark)?;
        if let Some(ours) = ours {
            manifest.stop(ours)?;
        } else if manifest.running()?.is_some() {
            // Somebody else has started it since: that one stays, and so does its pid file.
            return Ok(false);
        }
        restore(&manifest.pid_file, plan.pid_file.as_ref())?;
        return Ok(ours.is_some());
    }
    // An undo of this key that was killed may have started it already.
    let runs = manifest
        .left_under(&plan.mark)?
        .map_or_else(|| manifest.running(), |ours| Ok(Some(ours)))?;
    let running = match runs {
        Some(running) => running,
        None => manifest.start(&plan.mark)?,
    };
    if Some(running.pid) == plan.was {
        restore(&manifest.pid_file, plan.pid_file.as_ref())?;
    } else {
        write_pid(plan, running)?;
    }
    Ok(runs.is_none())
}

fn write_pid(plan: &Plan, running: Running) -> Result<(), Failure> {
    let before = plan.pid_file.as_ref();
    let bytes = format!("{}\n", running.pid).into_bytes();
    if before.is_some_and(|content| content.bytes == bytes) {
        return restore(&plan.manifest.pid_file, before);
    }
    let mode = before.map_or(PID_FILE_MODE, |content| content.mode);
    put(&plan.manifest.pid_file, &Content { bytes, mode })
}
