//! A plan becomes a run. The plan names its run before that begins, so that a crash between the
//! two is mended by asking again, and no plan ever has two runs.

use std::sync::Arc;

use contracts::v1::{self, PlanStatus, Reason};
use engine::RunId;
use engine::definition::check_params;

use super::check::{self, Checked};
use super::made_before;
use super::stored::Plan;
use crate::plans::{self, PLAN_LABEL, TRIAGE_LABEL};
use crate::runs::{NewRun, Started, started};
use crate::service::auth::Principal;
use crate::service::request::Mark;
use crate::service::status::Refusal;
use crate::service::{Context, convert, run};

/// `ExecuteRecovery`.
pub async fn execute(
    context: &Context,
    who: &Principal,
    request: v1::ExecuteRecoveryRequest,
) -> Result<v1::ExecuteRecoveryResponse, Refusal> {
    run::check_labels(&request.labels)?;
    let labels: std::collections::BTreeMap<String, String> = request.labels.into_iter().collect();
    if let Some(taken) =
        [PLAN_LABEL, TRIAGE_LABEL].into_iter().find(|name| labels.contains_key(*name))
    {
        let wrong = format!("`{taken}` is set by the orchestrator; take another name");
        return Err(Refusal::field("labels", wrong));
    }
    let asked = format!("{labels:?}");
    let parts = [request.plan_id.as_bytes(), asked.as_bytes()];
    let mark = Mark::new(&request.request_id, "ExecuteRecovery", &parts)?;
    let repeated = made_before(context, who, mark.as_ref()).await?;
    let is_repeated = repeated.is_some();
    let mut plan = match repeated {
        Some(plan) => plan,
        None => Plan::get(context, who, &request.plan_id).await?,
    };
    if request.validate_only {
        return would_be(context, &plan).await;
    }
    let checked = check::check(context, &plan).await?;
    if let Some(id) = plan.run() {
        // The plan was taken on, and its run may not have begun before a crash.
        if !is_repeated && context.runs.store().run(id).await?.is_some() {
            plan.expect_open()?;
        }
        return begin(context, who, plan, checked, id).await;
    }
    let _permit = context.admit()?;
    if plan.status() != PlanStatus::Approved {
        let id = plan.id();
        let message = format!(
            "the recovery plan `{id}` is not approved; look at it and approve it: \
             `orchestrator plans approve {id}`"
        );
        return Err(Refusal::new(Reason::PlanState, message));
    }
    refuse(&checked, &plan)?;
    let id = crate::ids::run_id(&**context.runs.clock());
    plan.body.run = Some(id);
    let now = context.runs.clock().now();
    plan.row.due_at = Some(plans::look_after(now).0);
    plan.body.labels = labels;
    plan.set_status(PlanStatus::Executed);
    if !plan.write(context, who, mark.as_ref(), "plan.execute").await? {
        plan = Plan::get(context, who, &request.plan_id).await?;
    }
    let id = plan.run().unwrap_or(id);
    begin(context, who, plan, checked, id).await
}

fn refuse(checked: &Checked, plan: &Plan) -> Result<(), Refusal> {
    if check::is_only_not_undoable(checked, plan) {
        let first = checked.errors().next().map(|it| it.message.clone()).unwrap_or_default();
        let id = plan.id();
        let message = format!(
            "{first}; allow it by `orchestrator plans edit {id} --allow-not-undoable`, or say by \
             `compensate` how it is undone"
        );
        let refusal = Refusal::new(Reason::PlanNotUndoable, message);
        let impossible =
            checked.changes.iter().filter(|change| change.undo_kind() == v1::UndoKind::Impossible);
        return Err(impossible.fold(refusal, |refusal, change| {
            refusal.precondition("NOT_UNDOABLE", &change.step, change.action.clone())
        }));
    }
    checked.refuse()
}

async fn would_be(context: &Context, plan: &Plan) -> Result<v1::ExecuteRecoveryResponse, Refusal> {
    plan.expect_open()?;
    let checked = check::check(context, plan).await?;
    Ok(v1::ExecuteRecoveryResponse {
        plan: Some(plan.shown(true)),
        run: None,
        complaints: checked.shown(),
        changes: checked.changes,
    })
}

/// Starts the run of a plan unless it is there.
async fn begin(
    context: &Context,
    who: &Principal,
    plan: Plan,
    checked: Checked,
    id: RunId,
) -> Result<v1::ExecuteRecoveryResponse, Refusal> {
    let there = context.runs.store().run(id).await?.is_some();
    let id = if there { id } else { start(context, who, &plan, &checked, id).await? };
    Ok(v1::ExecuteRecoveryResponse {
        plan: Some(plan.shown(true)),
        run: Some(run::shown(context, id).await?),
        complaints: vec![],
        changes: checked.changes,
    })
}

async fn start(
    context: &Context,
    who: &Principal,
    plan: &Plan,
    checked: &Checked,
    id: RunId,
) -> Result<RunId, Refusal> {
    let graph = &checked.unit.graph;
    context.runs.definitions().keep(graph, &plan.body.text).await?;
    let params = check_params(graph, None).map_err(run::wrong_params)?;
    let mut begun = started(graph, convert::params(params), context.runs.epoch());
    begun.tenant.clone_from(&who.tenant);
    begun.origin = who.origin(None);
    begun.labels.clone_from(&plan.body.labels);
    begun.labels.insert(PLAN_LABEL.to_owned(), plan.id().to_owned());
    if !plan.body.triage.is_empty() {
        begun.labels.insert(TRIAGE_LABEL.to_owned(), plan.body.triage.clone());
    }
    let graph = Arc::clone(graph);
    let new = NewRun { id, graph, started: begun, request: None, fork: None };
    let (Started::New(id) | Started::Before(id)) = context.runs.start(new).await?;
    Ok(id)
}
