//! Recovery plans: made from triages or by hand, edited, approved and executed.

mod check;
mod execute;
mod from_triage;
mod nobody;
pub mod progress;
mod stored;

use contracts::v1::create_recovery_plan_request::Source;
use contracts::v1::{self, PlanStatus, Reason};
use engine::definition::{Complaint, Severity};
use engine::graph::{Graph, NodeKind};
use store::{Cursor, DocumentFilter};

use super::auth::Principal;
use super::request::{Known, Mark};
use super::status::Refusal;
use super::{Context, convert, page};
use crate::documents::Kind;
use crate::limits;
use crate::plans::{Body, Issue};
pub use execute::execute;
use from_triage::Wanted;
pub(super) use stored::Plan;

/// `CreateRecoveryPlan`.
pub async fn create(
    context: &Context,
    who: &Principal,
    request: v1::CreateRecoveryPlanRequest,
) -> Result<v1::CreateRecoveryPlanResponse, Refusal> {
    let asked =
        format!("{:?} {} {}", request.source, request.rollback_all, request.allow_not_undoable);
    let only = request.issue_ids.join("\n");
    let mut parts = vec![asked.as_bytes()];
    // A request without them has the mark that it always had.
    if !only.is_empty() {
        parts.push(only.as_bytes());
    }
    let mark = Mark::new(&request.request_id, "CreateRecoveryPlan", &parts)?;
    if let Some(plan) = made_before(context, who, mark.as_ref()).await? {
        let plan = Some(plan.shown(true));
        return Ok(v1::CreateRecoveryPlanResponse { plan, complaints: vec![] });
    }
    let mut notes = Vec::new();
    let mut body = match request.source {
        Some(Source::TriageId(id)) => {
            let wanted = Wanted { only: &request.issue_ids, rollback_all: request.rollback_all };
            let (body, said) = from_triage::body(context, who, &id, wanted).await?;
            notes = said;
            body
        }
        Some(Source::Definition(_)) if !request.issue_ids.is_empty() => {
            let wrong = "are those of a triage; a definition says itself what is done";
            return Err(Refusal::field("issue_ids", wrong));
        }
        Some(Source::Definition(_)) if request.rollback_all => {
            let wrong = "a definition says itself what a failure undoes: `error_handling`";
            return Err(Refusal::field("rollback_all", wrong));
        }
        Some(Source::Definition(definition)) => by_hand(context, definition).await?,
        None => {
            let wrong = "one of `triage_id` and `definition` must be given";
            return Err(Refusal::field("source", wrong));
        }
    };
    body.allow_not_undoable = request.allow_not_undoable;
    let clock = &**context.runs.clock();
    let id =
        if request.validate_only { String::new() } else { crate::ids::run_id(clock).to_string() };
    let mut plan = Plan::new(who, id, body, clock.now());
    let checked = check::check(context, &plan).await?;
    plan.body.estimate_ms = check::estimate_ms(&checked.unit.graph, &plan);
    if !request.validate_only && !plan.write(context, who, mark.as_ref(), "plan.create").await? {
        // The same request was carried out meanwhile.
        let before = made_before(context, who, mark.as_ref()).await?;
        plan = before.ok_or_else(|| Refusal::unavailable("the request is being carried out"))?;
    }
    let mut complaints = checked.shown();
    complaints.extend(convert::complaints(&notes));
    Ok(v1::CreateRecoveryPlanResponse { plan: Some(plan.shown(true)), complaints })
}

/// The plan that the same request led to before.
async fn made_before(
    context: &Context,
    who: &Principal,
    mark: Option<&Mark>,
) -> Result<Option<Plan>, Refusal> {
    let Some(mark) = mark else { return Ok(None) };
    let Known::Before(row) = mark.known(&**context.runs.store(), who).await? else {
        return Ok(None);
    };
    let id = row.response.and_then(|id| String::from_utf8(id).ok()).unwrap_or_default();
    Plan::get(context, who, &id).await.map(Some)
}

/// A plan that somebody wrote: each of its steps is an issue of its own.
async fn by_hand(context: &Context, definition: v1::Definition) -> Result<Body, Refusal> {
    if !definition.siblings.is_empty() {
        let wrong = "a plan is one text; register the workflows that it uses";
        return Err(Refusal::field("definition.siblings", wrong));
    }
    let (unit, _) = check::compile(context, &definition.yaml).await?;
    let issues = issues_of(context, &unit.graph);
    Ok(Body { text: definition.yaml, issues, ..Body::default() })
}

fn issues_of(context: &Context, graph: &Graph) -> Vec<Issue> {
    let nodes = graph.list(Graph::ROOT).nodes.iter().map(|&node| graph.node(node));
    let issue = |node: &engine::graph::Node| {
        let (agent, estimate) = match &node.kind {
            NodeKind::Action(action) => {
                let agent = action.agent.as_deref().unwrap_or_default();
                (agent, check::declared_duration(context, agent, &action.action))
            }
            _ => ("", None),
        };
        let action = match &node.kind {
            NodeKind::Action(action) => action.action.to_string(),
            _ => String::new(),
        };
        Issue {
            id: node.id.to_string(),
            step: Some(node.id.to_string()),
            estimate_ms: estimate.and_then(|it| u64::try_from(it.as_millis()).ok()),
            agent: agent.to_owned(),
            action,
            ..Issue::default()
        }
    };
    nodes.map(issue).collect()
}

/// `GetRecoveryPlan`.
pub async fn get(
    context: &Context,
    who: &Principal,
    request: v1::GetRecoveryPlanRequest,
) -> Result<v1::GetRecoveryPlanResponse, Refusal> {
    let plan = Plan::get(context, who, &request.plan_id).await?;
    Ok(v1::GetRecoveryPlanResponse { plan: Some(plan.shown(true)) })
}

/// `ListRecoveryPlans`.
pub async fn list(
    context: &Context,
    who: &Principal,
    request: v1::ListRecoveryPlansRequest,
) -> Result<v1::ListRecoveryPlansResponse, Refusal> {
    let size = page::size(request.page_size)?;
    let scope = format!("ListRecoveryPlans {}", request.triage_id);
    let after = match page::place::<2>(&scope, &request.page_token)? {
        Some([at, id]) => Some(Cursor { at: page::part(&at)?, id }),
        None => None,
    };
    let filter = DocumentFilter {
        kind: Kind::Plan.number(),
        tenant: Some(who.tenant.clone()),
        parent: (!request.triage_id.is_empty()).then_some(request.triage_id),
        status: None,
    };
    let limit = u32::try_from(size).unwrap_or(u32::MAX);
    let rows = context.runs.store().documents(&filter, after, false, limit).await?;
    let next_page_token = match rows.last() {
        Some(last) if rows.len() == size => {
            page::token(&scope, &[&last.created_at.to_string(), &last.id])
        }
        _ => String::new(),
    };
    let plans: Result<Vec<Plan>, Refusal> = rows.into_iter().map(Plan::read).collect();
    let plans = plans?.iter().map(|plan| plan.shown(false)).collect();
    Ok(v1::ListRecoveryPlansResponse { plans, next_page_token })
}

/// `EditRecoveryPlan`.
pub async fn edit(
    context: &Context,
    who: &Principal,
    request: v1::EditRecoveryPlanRequest,
) -> Result<v1::EditRecoveryPlanResponse, Refusal> {
    let v1::EditRecoveryPlanRequest { plan_id, definition, allow_not_undoable, etag, .. } =
        &request;
    let asked = format!("{allow_not_undoable:?} {etag}");
    let parts = [plan_id.as_bytes(), definition.as_bytes(), asked.as_bytes()];
    let mark = Mark::new(&request.request_id, "EditRecoveryPlan", &parts)?;
    if let Some(plan) = made_before(context, who, mark.as_ref()).await? {
        let plan = Some(plan.shown(true));
        return Ok(v1::EditRecoveryPlanResponse { plan, complaints: vec![] });
    }
    let mut plan = Plan::get(context, who, plan_id).await?;
    plan.expect_open()?;
    plan.expect(etag)?;
    if definition.is_empty() && allow_not_undoable.is_none() {
        let wrong = "nothing is to be changed: give a definition or `allow_not_undoable`";
        return Err(Refusal::field("definition", wrong));
    }
    if let Some(allow) = *allow_not_undoable {
        plan.body.allow_not_undoable = allow;
    }
    if !definition.is_empty() {
        plan.body.text.clone_from(definition);
    }
    plan.set_status(PlanStatus::Draft);
    plan.body.approved_by.clear();
    plan.body.comment.clear();
    let checked = check::check(context, &plan).await?;
    // What cannot be undone is refused when it is to be done; all else is a slip.
    if !check::is_only_not_undoable(&checked, &plan) {
        checked.refuse()?;
    }
    plan.body.estimate_ms = check::estimate_ms(&checked.unit.graph, &plan);
    let mut complaints = checked.complaints.clone();
    complaints.extend(lost_issues(&plan, &checked.unit.graph));
    if !request.validate_only {
        plan.write(context, who, mark.as_ref(), "plan.edit").await?;
    }
    let complaints = convert::complaints(&complaints);
    Ok(v1::EditRecoveryPlanResponse { plan: Some(plan.shown(true)), complaints })
}

/// Issues whose step is not there any more.
fn lost_issues(plan: &Plan, graph: &Graph) -> Vec<Complaint> {
    let is_there = |step: &str| {
        graph.list(Graph::ROOT).nodes.iter().any(|&node| *graph.node(node).id == *step)
    };
    let lost = plan.body.issues.iter().filter_map(|issue| {
        let step = issue.step.as_deref().filter(|step| !is_there(step))?;
        Some((&issue.id, step))
    });
    lost.take(limits::WARNINGS_MAX)
        .map(|(issue, step)| Complaint {
            file: String::new(),
            line: 0,
            column: 0,
            message: format!("no step `{step}` mends the issue `{issue}` any more: people have it"),
            suggestion: String::new(),
            severity: Severity::Warning,
        })
        .collect()
}

/// `ValidateRecoveryPlan`.
pub async fn validate(
    context: &Context,
    who: &Principal,
    request: v1::ValidateRecoveryPlanRequest,
) -> Result<v1::ValidateRecoveryPlanResponse, Refusal> {
    let plan = Plan::get(context, who, &request.plan_id).await?;
    let checked = check::check(context, &plan).await?;
    Ok(v1::ValidateRecoveryPlanResponse {
        valid: checked.is_valid(),
        complaints: checked.shown(),
        changes: checked.changes,
    })
}

/// `ApproveRecoveryPlan`.
pub async fn approve(
    context: &Context,
    who: &Principal,
    request: v1::ApproveRecoveryPlanRequest,
) -> Result<v1::ApproveRecoveryPlanResponse, Refusal> {
    let v1::ApproveRecoveryPlanRequest { plan_id, etag, comment, request_id } = request;
    if comment.len() > limits::REQUEST_TEXT_BYTES_MAX {
        let max = limits::REQUEST_TEXT_BYTES_MAX;
        let wrong = format!("has {} bytes; {max} are allowed", comment.len());
        return Err(Refusal::field("comment", wrong));
    }
    let parts = [plan_id.as_bytes(), etag.as_bytes(), comment.as_bytes()];
    let mark = Mark::new(&request_id, "ApproveRecoveryPlan", &parts)?;
    if let Some(plan) = made_before(context, who, mark.as_ref()).await? {
        return Ok(v1::ApproveRecoveryPlanResponse { plan: Some(plan.shown(true)) });
    }
    let mut plan = Plan::get(context, who, &plan_id).await?;
    plan.expect_open()?;
    plan.expect(&etag)?;
    if plan.status() == PlanStatus::Approved {
        let by = &plan.body.approved_by;
        let message = format!("the recovery plan `{plan_id}` is approved already, by `{by}`");
        return Err(Refusal::new(Reason::PlanState, message));
    }
    plan.set_status(PlanStatus::Approved);
    plan.body.approved_by.clone_from(&who.subject);
    plan.body.comment = comment;
    plan.write(context, who, mark.as_ref(), "plan.approve").await?;
    Ok(v1::ApproveRecoveryPlanResponse { plan: Some(plan.shown(true)) })
}
