//! Checkpoints of runs, as clients see them: listed from what the run's commits wrote, shown whole
//! from the journal up to where the checkpoint stands.

use contracts::v1;
use engine::{CheckpointView, ContentHash, RunId, State};
use store::{Cursor, DocumentFilter, DocumentRow};

use super::auth::Principal;
use super::status::Refusal;
use super::{Context, convert, page, run};
use crate::documents::Kind;
use crate::runs::projected::{CheckpointStatus, StoredCheckpoint};

/// The sequence of the event that every run starts with.
const START: i64 = 1;

/// `ListCheckpoints`.
pub async fn list(
    context: &Context,
    _who: &Principal,
    request: v1::ListCheckpointsRequest,
) -> Result<v1::ListCheckpointsResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let size = page::size(request.page_size)?;
    let scope = format!("ListCheckpoints {id}");
    let after = match page::place::<2>(&scope, &request.page_token)? {
        Some([at, id]) => Some(Cursor { at: page::part(&at)?, id }),
        None => None,
    };
    let row = run::row(context, id).await?;
    let mut checkpoints = Vec::new();
    let mut last = (row.created_at, String::new());
    if after.is_none() {
        checkpoints.push(start(&context.runs.read_to(id, START).await?));
    }
    let room = size - checkpoints.len();
    if room > 0 {
        let filter = DocumentFilter {
            kind: Kind::Checkpoint.number(),
            tenant: None,
            parent: Some(id.to_string()),
            status: Some(CheckpointStatus::Stands.number()),
        };
        let limit = u32::try_from(room).unwrap_or(u32::MAX);
        for row in context.runs.store().documents(&filter, after, true, limit).await? {
            checkpoints.push(stored(id, &row)?);
            last = (row.created_at, row.id);
        }
    }
    let is_full = checkpoints.len() == size;
    let token = || page::token(&scope, &[&last.0.to_string(), &last.1]);
    let next_page_token = if is_full { token() } else { String::new() };
    Ok(v1::ListCheckpointsResponse { checkpoints, next_page_token })
}

/// `GetCheckpoint`.
pub async fn get(
    context: &Context,
    _who: &Principal,
    request: v1::GetCheckpointRequest,
) -> Result<v1::GetCheckpointResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let wanted = request.checkpoint.as_str();
    let (_, state) = context.folded(id).await?;
    let by_name = state.checkpoints().rev().find(|found| *found.name == *wanted);
    let found =
        by_name.or_else(|| state.checkpoints().find(|found| found.sequence.to_string() == wanted));
    let is_start = wanted == "start" || wanted == START.to_string();
    let (mut shown, at) = match found {
        Some(view) => {
            let at = context.runs.read_to(id, view.sequence.into()).await?;
            (checkpoint(id, &view), at)
        }
        None if is_start => {
            let at = context.runs.read_to(id, START).await?;
            (start(&at), at)
        }
        None => {
            let name = super::status::cut(wanted, 200);
            return Err(engine::Rejection::CheckpointNotFound(name).into());
        }
    };
    shown.settled_steps = settled(&at);
    shown.params = Some(convert::payload(&*at.started().params));
    Ok(v1::GetCheckpointResponse { checkpoint: Some(shown) })
}

fn start(state: &State) -> v1::Checkpoint {
    v1::Checkpoint {
        run_id: state.id().to_string(),
        name: "start".to_owned(),
        sequence: START,
        time: Some(convert::timestamp(state.started_at())),
        content_hash: state.start_content().to_string(),
        ..v1::Checkpoint::default()
    }
}

fn checkpoint(run: RunId, view: &CheckpointView) -> v1::Checkpoint {
    v1::Checkpoint {
        run_id: run.to_string(),
        name: view.name.to_string(),
        sequence: i64::from(view.sequence),
        time: Some(convert::timestamp(view.at)),
        step: view.step.to_string(),
        settled_count: i32::try_from(view.settled).unwrap_or(i32::MAX),
        content_hash: view.content.to_string(),
        ..v1::Checkpoint::default()
    }
}

fn stored(run: RunId, row: &DocumentRow) -> Result<v1::Checkpoint, Refusal> {
    let stored: StoredCheckpoint = crate::triages::body(row)?;
    Ok(v1::Checkpoint {
        run_id: run.to_string(),
        name: stored.name,
        sequence: i64::from(stored.sequence),
        time: Some(convert::timestamp(engine::Instant(row.created_at))),
        step: stored.step,
        settled_count: i32::try_from(stored.settled).unwrap_or(i32::MAX),
        content_hash: stored.content_hash,
        ..v1::Checkpoint::default()
    })
}

fn settled(state: &State) -> Vec<v1::SettledStep> {
    let steps = state.settled_steps().into_iter();
    let step = |(path, word, output): (std::sync::Arc<str>, &str, Option<engine::task::Json>)| {
        let status = format!("STEP_STATUS_{}", word.to_ascii_uppercase());
        let hash = output.map(|output| ContentHash::of(output.as_bytes()).to_string());
        v1::SettledStep {
            step: path.to_string(),
            status: v1::StepStatus::from_str_name(&status).unwrap_or_default().into(),
            output_hash: hash.unwrap_or_default(),
        }
    };
    steps.map(step).collect()
}
