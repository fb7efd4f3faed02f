//! `DiagnoseRun`: what holds a run up, and what can be done about it.

use contracts::v1;
use engine::RunStatus;

use super::auth::Principal;
use super::status::Refusal;
use super::{Context, convert, run};
use crate::limits;

/// `DiagnoseRun`.
pub async fn diagnose(
    context: &Context,
    _who: &Principal,
    request: v1::DiagnoseRunRequest,
) -> Result<v1::DiagnoseRunResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    if let Some(why) = context.runs.why_stuck(id) {
        run::row(context, id).await?;
        let status = v1::RunStatus::Stuck.into();
        return Ok(v1::DiagnoseRunResponse { status, findings: vec![stuck(&why)] });
    }
    let (_, state) = match context.runs.read(id).await {
        Ok(read) => read,
        Err(crate::runs::Error::Stuck(_, why)) => {
            let status = v1::RunStatus::Stuck.into();
            return Ok(v1::DiagnoseRunResponse { status, findings: vec![stuck(&why)] });
        }
        Err(error) => return Err(error.into()),
    };
    let mut findings = Vec::new();
    if state.status() == RunStatus::Paused {
        findings.push(v1::Finding {
            step: String::new(),
            cause: "the run is paused: it starts nothing new".to_owned(),
            remedy: format!("let it go on: `orchestrator runs resume {id}`"),
            since: None,
        });
    }
    if state.phase() == engine::Phase::Blocked {
        findings.push(v1::Finding {
            step: String::new(),
            cause: "the run waits for its concurrency key or its rate limit".to_owned(),
            remedy: "wait until the runs that hold it have ended, or cancel them".to_owned(),
            since: Some(run::ago(context, state.started_at())),
        });
    }
    for view in state.steps() {
        if findings.len() >= limits::FINDINGS_MAX {
            break;
        }
        let Some(why) = context.why(&view) else { continue };
        let why = why.of_run(id);
        findings.push(v1::Finding {
            step: view.path.to_string(),
            cause: why.cause,
            remedy: why.remedy,
            since: why.since.map(|since| run::ago(context, since)),
        });
    }
    for (path, key) in state.undos_owed() {
        if findings.len() >= limits::FINDINGS_MAX {
            break;
        }
        let Some(why) = context.dispatcher.why(&key) else { continue };
        findings.push(v1::Finding {
            step: path.to_string(),
            cause: format!("its undo waits: {}", why.cause),
            remedy: why.remedy,
            since: Some(run::ago(context, why.since)),
        });
    }
    findings.extend(undos_for_a_person(id, &state).take(limits::FINDINGS_MAX));
    let status = convert::run_status(state.status()).into();
    Ok(v1::DiagnoseRunResponse { status, findings })
}

/// Undos that failed for good: nothing goes on before a person has decided.
fn undos_for_a_person(
    id: engine::RunId,
    state: &engine::State,
) -> impl Iterator<Item = v1::Finding> {
    let undos = state.rollbacks().into_iter().flat_map(|rollback| rollback.undos);
    undos.filter(|undo| undo.status == "stuck").map(move |undo| {
        let why = undo.error.map_or_else(String::new, |error| error.message);
        v1::Finding {
            step: undo.path.to_string(),
            cause: format!("its undo failed for good: {why}"),
            remedy: format!(
                "decide: `orchestrator rollback decide {id} {} retry|done|skip --comment WHY`",
                undo.path
            ),
            since: None,
        }
    })
}

fn stuck(why: &str) -> v1::Finding {
    v1::Finding {
        step: String::new(),
        cause: format!("a defect stopped this run: {why}"),
        remedy: "report it with the run's journal (`orchestrator runs journal RUN`); the run is \
                 taken up again when the server is started anew"
            .to_owned(),
        since: None,
    }
}
