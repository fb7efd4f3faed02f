//! Workflows: checked, registered, listed.

use contracts::v1::{self, Reason};
use engine::Instant;
use engine::definition::{Complaint, Severity};
use engine::graph::Graph;
use serde_json::json;
use store::{Registration, WorkflowRow};

use super::auth::Principal;
use super::definition::{self, Compiled, Strictness, Unit};
use super::request::{Known, Mark};
use super::status::Refusal;
use super::{Context, convert, page};
use crate::audit;
use crate::limits;

/// The list that page tokens of `ListWorkflows` are good for.
const LIST: &str = "ListWorkflows";
/// How many names are looked through for one that was meant.
const NAMES_LOOKED_THROUGH: u32 = 1_000;

/// `ValidateWorkflow`.
pub async fn validate(
    context: &Context,
    who: &Principal,
    request: v1::ValidateWorkflowRequest,
) -> Result<v1::ValidateWorkflowResponse, Refusal> {
    let definition = given(request.definition)?;
    let params = convert::value(request.params, "params")?;
    let compiled = match definition::compile(context, definition).await? {
        Ok(compiled) => compiled,
        Err(errors) => {
            let complaints = convert::complaints(&errors);
            return Ok(v1::ValidateWorkflowResponse { valid: false, complaints, workflow: None });
        }
    };
    let mut complaints = check(context, who, &compiled).await?;
    let mut valid = true;
    if let Some(params) = params
        && let Err(errors) = engine::definition::check_params(&compiled.main.graph, Some(&params))
    {
        valid = false;
        complaints.extend(errors.into_iter().map(|error| Complaint {
            file: String::new(),
            line: 0,
            column: 0,
            message: format!("{}: {}", convert::param_path(&error.path), error.message),
            suggestion: String::new(),
            severity: Severity::Error,
        }));
    }
    let row = row(who, &compiled.main.graph, context.runs.clock().now());
    Ok(v1::ValidateWorkflowResponse {
        valid,
        complaints: convert::complaints(&complaints),
        workflow: Some(v1::Workflow {
            definition: compiled.main.yaml,
            create_time: None,
            ..convert::workflow(&row).0
        }),
    })
}

/// `RegisterWorkflow`.
pub async fn register(
    context: &Context,
    who: &Principal,
    request: v1::RegisterWorkflowRequest,
) -> Result<v1::RegisterWorkflowResponse, Refusal> {
    let v1::RegisterWorkflowRequest { definition, replace, etag, validate_only, request_id } =
        request;
    let definition = given(definition)?;
    let flags = [u8::from(replace), u8::from(validate_only)];
    let parts: [&[u8]; 3] = [definition.yaml.as_bytes(), etag.as_bytes(), &flags];
    let mark = Mark::new(&request_id, "RegisterWorkflow", &parts)?;
    let file = definition.file.clone();
    let compiled = definition::compile(context, definition).await?;
    let compiled = compiled.map_err(|complaints| definition::refuse(&file, &complaints))?;
    let complaints = convert::complaints(&check(context, who, &compiled).await?);
    let store = &**context.runs.store();
    let now = context.runs.clock().now();
    let row = row(who, &compiled.main.graph, now);
    if validate_only {
        let workflow = Some(convert::workflow(&row).0);
        return Ok(v1::RegisterWorkflowResponse { workflow, complaints });
    }
    if let Some(mark) = &mark
        && let Known::Before(_) = mark.known(store, who).await?
    {
        let workflow = Some(get_row(context, who, &row.name, Some(&row.version)).await?.0);
        return Ok(v1::RegisterWorkflowResponse { workflow, complaints });
    }
    context.runs.definitions().keep(&compiled.main.graph, &compiled.main.yaml).await?;
    let etag = (!etag.is_empty()).then_some(etag.as_str());
    let entry = registered(who, &row, replace);
    let mut attempts = 0;
    let registration = loop {
        let entry = audit::next(store, entry.clone(), now).await?;
        match store.register_workflow(&row, replace, etag, &[entry]).await? {
            // Somebody else has written to the chain.
            Registration::AuditTaken if attempts < limits::AUDIT_ATTEMPTS => attempts += 1,
            other => break other,
        }
    };
    match registration {
        Registration::Registered => {}
        Registration::AuditTaken => return Err(Refusal::unavailable(audit::BUSY)),
        Registration::Exists(there) if there.definition_hash == row.definition_hash => {}
        Registration::Exists(there) => return Err(exists(&there)),
        Registration::EtagMismatch { stored } => return Err(changed(&row, stored.as_deref())),
    }
    context.schedules.activate(&who.tenant, &row.name).await?;
    if let Some(mark) = &mark {
        mark.note(store, who, now).await?;
    }
    let (workflow, _) = get_row(context, who, &row.name, Some(&row.version)).await?;
    Ok(v1::RegisterWorkflowResponse { workflow: Some(workflow), complaints })
}

fn registered(who: &Principal, row: &WorkflowRow, replace: bool) -> audit::Entry {
    let body = json!({
        "version": row.version, "definition": row.definition_hash.to_string(), "replace": replace,
    });
    let (resource, actor) = (format!("workflow/{}", row.name), who.subject.clone());
    audit::Entry { resource, actor, action: "workflow.register", body }
}

/// `ListWorkflows`.
pub async fn list(
    context: &Context,
    who: &Principal,
    request: v1::ListWorkflowsRequest,
) -> Result<v1::ListWorkflowsResponse, Refusal> {
    let size = page::size(request.page_size)?;
    let after = page::place::<2>(LIST, &request.page_token)?;
    let after = after.as_ref().map(|[name, version]| (&**name, &**version));
    let limit = u32::try_from(size).unwrap_or(u32::MAX);
    let rows = context.runs.store().workflows(&who.tenant, None, after, limit).await?;
    let next_page_token = match rows.last() {
        Some(last) if rows.len() == size => page::token(LIST, &[&last.name, &last.version]),
        _ => String::new(),
    };
    let fires = context.schedules.next_instants(&who.tenant).await?;
    let show = |row: &WorkflowRow| show(row, &fires);
    let workflows = rows.iter().map(show).collect();
    Ok(v1::ListWorkflowsResponse { workflows, next_page_token })
}

/// `GetWorkflow`.
pub async fn get(
    context: &Context,
    who: &Principal,
    request: v1::GetWorkflowRequest,
) -> Result<v1::GetWorkflowResponse, Refusal> {
    if request.name.is_empty() {
        return Err(Refusal::field("name", "must be given"));
    }
    let version = (!request.version.is_empty()).then_some(request.version.as_str());
    let (mut workflow, row) = get_row(context, who, &request.name, version).await?;
    let text = context.runs.store().definition(row.definition_hash).await?;
    workflow.definition = text.unwrap_or_default();
    Ok(v1::GetWorkflowResponse { workflow: Some(workflow) })
}

/// A registered workflow, or why there is none.
///
/// # Errors
/// `WORKFLOW_NOT_FOUND` with the nearest name that there is.
pub async fn find(
    context: &Context,
    who: &Principal,
    name: &str,
    version: Option<&str>,
) -> Result<WorkflowRow, Refusal> {
    let store = context.runs.store();
    if let Some(row) = store.workflow(&who.tenant, name, version).await? {
        return Ok(row);
    }
    let full = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
    let rows = store.workflows(&who.tenant, None, None, NAMES_LOOKED_THROUGH).await?;
    let versions: Vec<&str> =
        rows.iter().filter(|row| row.name == name).map(|row| &*row.version).collect();
    let hint = if versions.is_empty() {
        let near = rows
            .iter()
            .map(|row| &*row.name)
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        match near.filter(|near| strsim::jaro_winkler(near, name) > 0.8) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => "; register it first".to_owned(),
        }
    } else {
        let first: Vec<&str> = versions.into_iter().take(10).collect();
        format!("; its versions are {}", first.join(", "))
    };
    let message = format!("there is no workflow `{full}`{hint}");
    Err(Refusal::missing(Reason::WorkflowNotFound, "workflow", &full, message))
}

async fn get_row(
    context: &Context,
    who: &Principal,
    name: &str,
    version: Option<&str>,
) -> Result<(v1::Workflow, WorkflowRow), Refusal> {
    let row = find(context, who, name, version).await?;
    let fires = context.schedules.next_instants(&who.tenant).await?;
    Ok((show(&row, &fires), row))
}

fn show(row: &WorkflowRow, fires: &crate::schedules::NextInstants) -> v1::Workflow {
    let (mut workflow, summary) = convert::workflow(row);
    if let (Some(cron), Some(timezone)) = (&summary.cron, &summary.timezone) {
        let next = fires.of(&row.name, cron, timezone);
        workflow.next_fire_time = next.map(convert::timestamp);
    }
    workflow
}

/// All warnings about a definition that compiles.
async fn check(
    context: &Context,
    who: &Principal,
    compiled: &Compiled,
) -> Result<Vec<Complaint>, Refusal> {
    let Compiled { main, siblings, warnings } = compiled;
    let mut complaints = warnings.clone();
    let (_, unknown) =
        definition::sub_workflows(context, &who.tenant, main, siblings, Strictness::Warn).await?;
    complaints.extend(unknown);
    for unit in std::iter::once(main).chain(siblings.values()) {
        complaints.extend(definition::agent_warnings(context, unit));
    }
    complaints.extend(unfit_for_schedule(main));
    complaints.truncate(limits::WARNINGS_MAX);
    Ok(complaints)
}

/// A schedule has nobody who could give params.
fn unfit_for_schedule(unit: &Unit) -> Option<Complaint> {
    unit.graph.schedule.as_ref()?;
    let errors = engine::definition::check_params(&unit.graph, None).err()?;
    let first = errors.first()?;
    Some(Complaint {
        file: unit.file.clone(),
        line: 1,
        column: 1,
        message: format!(
            "the schedule can never start a run: {}: {}",
            convert::param_path(&first.path),
            first.message
        ),
        suggestion: "give the parameter a default".to_owned(),
        severity: Severity::Warning,
    })
}

fn row(who: &Principal, graph: &Graph, now: Instant) -> WorkflowRow {
    WorkflowRow {
        tenant: who.tenant.clone(),
        name: graph.name.to_string(),
        version: graph.version.clone(),
        definition_hash: graph.hash,
        etag: graph.hash.to_string(),
        registered_at: now.0,
        summary: convert::workflow_summary(graph),
    }
}

fn given(definition: Option<v1::Definition>) -> Result<v1::Definition, Refusal> {
    definition.ok_or_else(|| Refusal::field("definition", "must be given"))
}

fn exists(there: &WorkflowRow) -> Refusal {
    let WorkflowRow { name, version, definition_hash, .. } = there;
    let message = format!(
        "workflow `{name}` version `{version}` is registered with other content; give the \
         definition a new version, or ask for replacing it"
    );
    Refusal::missing(Reason::WorkflowExists, "workflow", &format!("{name}@{version}"), message)
        .metadata("etag", definition_hash.to_string())
}

fn changed(row: &WorkflowRow, stored: Option<&str>) -> Refusal {
    let WorkflowRow { name, version, .. } = row;
    let message = match stored {
        Some(stored) => format!(
            "workflow `{name}` version `{version}` has changed since its etag was read; its etag \
             is {stored} now"
        ),
        None => format!(
            "workflow `{name}` version `{version}` is not registered, so no etag of it is right; \
             leave the etag out"
        ),
    };
    Refusal::new(Reason::EtagMismatch, message).metadata("etag", stored.unwrap_or_default())
}
