//! Runs: started, read, listed, steered.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::v1::{self, Reason, start_run_request::Source};
use engine::definition::{Complaint, check_params};
use engine::event::Origin;
use engine::graph::Graph;
use engine::{Command, Event, Instant, RunId, State};
use prost::Message as _;
use store::{Cursor, RunFilter, RunRow};

use super::auth::Principal;
use super::definition::{self, Strictness, Unit};
use super::request::{Known, Mark};
use super::status::Refusal;
use super::{Context, convert, page, workflow};
use crate::limits;
use crate::plans;
use crate::runs::{NewRun, Started, started};

/// The status of rows whose rollback waits for a person.
const STUCK: i32 = v1::RunStatus::Stuck as i32;

/// What is to be started.
pub(super) struct Plan {
    pub(super) main: Unit,
    pub(super) siblings: BTreeMap<String, Unit>,
    pub(super) graphs: Vec<Arc<Graph>>,
    warnings: Vec<Complaint>,
}

impl Plan {
    /// Keeps the definitions, so that the runs can be folded anywhere.
    pub(super) async fn keep(&self, context: &Context) -> Result<(), Refusal> {
        for unit in std::iter::once(&self.main).chain(self.siblings.values()) {
            if !unit.yaml.is_empty() {
                context.runs.definitions().keep(&unit.graph, &unit.yaml).await?;
            }
        }
        Ok(())
    }
}

/// `StartRun`.
pub async fn start(
    context: &Context,
    who: &Principal,
    request: v1::StartRunRequest,
) -> Result<v1::StartRunResponse, Refusal> {
    check_labels(&request.labels)?;
    let priority = check_priority(request.priority)?;
    let mark = start_mark(&request)?;
    let store = &**context.runs.store();
    if let Some(mark) = &mark
        && let Known::Before(row) = mark.known(store, who).await?
        && let Some(run) = row.run_id
    {
        return Ok(v1::StartRunResponse {
            run: Some(shown(context, run).await?),
            complaints: vec![],
        });
    }
    // A repetition was answered above: what was accepted stays so.
    let _permit = if request.validate_only { None } else { Some(context.admit()?) };
    let plan = plan(context, who, request.source).await?;
    let given = convert::value(request.params, "params")?;
    let params = check_params(&plan.main.graph, given.as_ref()).map_err(wrong_params)?;
    if request.require_agents {
        definition::require_agents(context, &plan.graphs)?;
    }
    let complaints = convert::complaints(&plan.warnings);
    let graph = &plan.main.graph;
    let mut started = started(graph, convert::params(params), context.runs.epoch());
    started.tenant.clone_from(&who.tenant);
    started.origin = who.origin(mark.as_ref().map(Mark::journal));
    started.labels = request.labels.into_iter().collect();
    started.priority = priority.unwrap_or(graph.priority);
    started.siblings = hashes(&plan.siblings);
    if request.validate_only {
        let run = Some(would_be(graph, &started));
        return Ok(v1::StartRunResponse { run, complaints });
    }
    plan.keep(context).await?;
    let clock = &**context.runs.clock();
    let id = crate::ids::run_id(clock);
    let request = mark.map(|mark| mark.row(who, Some(id), clock.now()));
    let new = NewRun { id, graph: Arc::clone(graph), started, request, fork: None };
    let (Started::New(id) | Started::Before(id)) = context.runs.start(new).await?;
    Ok(v1::StartRunResponse { run: Some(shown(context, id).await?), complaints })
}

/// Finds or compiles what is to be started.
pub(super) async fn plan(
    context: &Context,
    who: &Principal,
    source: Option<Source>,
) -> Result<Plan, Refusal> {
    let (main, siblings, mut warnings) = match source {
        None => {
            let message = "one of `workflow` and `definition` must be given";
            return Err(Refusal::field("source", message));
        }
        Some(Source::Workflow(name)) => {
            let (name, version) = match name.split_once('@') {
                Some((name, version)) => (name, Some(version)),
                None => (name.as_str(), None),
            };
            if name.is_empty() {
                return Err(Refusal::field("workflow", "must name a workflow"));
            }
            let row = workflow::find(context, who, name, version).await?;
            let graph = context.runs.definitions().graph(row.definition_hash).await?;
            let file = format!("{name}@{}", row.version);
            (Unit { file, yaml: String::new(), graph }, BTreeMap::new(), Vec::new())
        }
        Some(Source::Definition(definition)) => {
            let file = definition.file.clone();
            let compiled = definition::compile(context, definition).await?;
            let compiled = compiled.map_err(|all| definition::refuse(&file, &all))?;
            (compiled.main, compiled.siblings, compiled.warnings)
        }
    };
    let strict = Strictness::Refuse;
    let (graphs, unknown) =
        definition::sub_workflows(context, &who.tenant, &main, &siblings, strict).await?;
    if !unknown.is_empty() {
        return Err(definition::refuse(&main.file, &unknown));
    }
    for unit in std::iter::once(&main).chain(siblings.values()) {
        warnings.extend(definition::agent_warnings(context, unit));
    }
    warnings.truncate(limits::WARNINGS_MAX);
    Ok(Plan { main, siblings, graphs, warnings })
}

/// `GetRun`.
pub async fn get(
    context: &Context,
    _who: &Principal,
    request: v1::GetRunRequest,
) -> Result<v1::GetRunResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let row = row(context, id).await?;
    let stuck = context.runs.why_stuck(id);
    if request.view() != v1::RunView::Full || stuck.is_some() {
        return Ok(v1::GetRunResponse { run: Some(basic(context, &row).await?) });
    }
    let (row, state) = context.folded(id).await?;
    let mut run = with_state(convert::run(&row, None), &state);
    let mut result = convert::result(&state);
    result.steps = context.steps(&state);
    let size = result.encoded_len() + run.encoded_len();
    if size > limits::RESPONSE_BYTES_MAX {
        let max = limits::RESPONSE_BYTES_MAX;
        let message = format!(
            "the result has {size} bytes, an answer has at most {max}; read the run in the basic \
             view and its steps by `ListSteps`, page by page"
        );
        return Err(Refusal::limit("result", message));
    }
    run.result = Some(result);
    Ok(v1::GetRunResponse { run: Some(run) })
}

/// `ListRuns`.
pub async fn list(
    context: &Context,
    who: &Principal,
    request: v1::ListRunsRequest,
) -> Result<v1::ListRunsResponse, Refusal> {
    let size = page::size(request.page_size)?;
    let ascending = ascending(&request.order_by)?;
    let filter = Filter::read(&request.filter)?;
    let scope = format!("ListRuns {ascending} {}", request.filter.trim());
    let mut after = match page::place::<2>(&scope, &request.page_token)? {
        Some([at, id]) => Some(Cursor { at: page::part(&at)?, id: page::part(&id)? }),
        None => None,
    };
    let store = context.runs.store();
    let wanted = RunFilter { tenant: Some(who.tenant.clone()), ..filter.rows };
    let mut runs = Vec::new();
    // Runs that a defect stopped are known to this process alone, so rows are looked through.
    for _ in 0..limits::PAGES_LOOKED_THROUGH_MAX {
        let limit = if filter.stuck { limits::PAGE_SIZE_MAX } else { size };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let rows = store.runs(&wanted, after, ascending, limit).await?;
        let is_last = rows.len() < limit as usize;
        for row in &rows {
            after = Some(Cursor { at: row.created_at, id: row.run_id });
            let stuck = context.runs.why_stuck(row.run_id);
            let is_stuck = stuck.is_some() || i32::from(row.status) == STUCK;
            if !filter.stuck || is_stuck {
                runs.push(convert::run(row, stuck));
            }
            if runs.len() == size {
                break;
            }
        }
        if is_last && runs.len() < size {
            after = None;
        }
        if runs.len() == size || is_last || !filter.stuck {
            break;
        }
    }
    let next_page_token = after.map_or_else(String::new, |after| {
        page::token(&scope, &[&after.at.to_string(), &after.id.to_string()])
    });
    Ok(v1::ListRunsResponse { runs, next_page_token })
}

/// `ListSteps`.
pub async fn steps(
    context: &Context,
    _who: &Principal,
    request: v1::ListStepsRequest,
) -> Result<v1::ListStepsResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let size = page::size(request.page_size)?;
    let scope = format!("ListSteps {id}");
    let after = page::place::<2>(&scope, &request.page_token)?;
    let (_, state) = context.folded(id).await?;
    let views = state.steps();
    let begin = match after {
        None => 0,
        Some([index, path]) => {
            let index: usize = page::part(&index)?;
            // Steps may have come to be before it since.
            let same = views.get(index).is_some_and(|view| *view.path == *path);
            let found =
                if same { Some(index) } else { views.iter().position(|view| *view.path == *path) };
            found.unwrap_or(index) + 1
        }
    };
    let (mut steps, mut bytes, mut last) = (Vec::new(), 0, None);
    for (index, view) in views.iter().enumerate().skip(begin).take(size) {
        let step = context.step(view);
        bytes += step.encoded_len();
        if bytes > limits::RESPONSE_BYTES_MAX && !steps.is_empty() {
            break;
        }
        steps.push(step);
        last = Some((index, view));
    }
    let next_page_token = match last {
        Some((index, view)) if index + 1 < views.len() => {
            page::token(&scope, &[&index.to_string(), &view.path])
        }
        _ => String::new(),
    };
    Ok(v1::ListStepsResponse { steps, next_page_token })
}

/// `ListRunJournal`.
pub async fn journal(
    context: &Context,
    _who: &Principal,
    request: v1::ListRunJournalRequest,
) -> Result<v1::ListRunJournalResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let size = page::size(request.page_size)?;
    let scope = format!("ListRunJournal {id}");
    let mut after: i64 = match page::place::<1>(&scope, &request.page_token)? {
        Some([sequence]) => page::part(&sequence)?,
        None => 0,
    };
    let version = row(context, id).await?.version;
    let (mut events, mut bytes) = (Vec::new(), 0);
    'pages: while events.len() < size {
        let limit = (size - events.len()).min(limits::JOURNAL_ROWS_READ);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let rows = context.runs.store().journal(id, after, limit).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            bytes += row.body.len();
            if bytes > limits::RESPONSE_BYTES_MAX && !events.is_empty() {
                break 'pages;
            }
            after = row.seq;
            events.push(convert::journal_event(id, &row));
        }
    }
    let more = !events.is_empty() && after < version;
    let next_page_token =
        if more { page::token(&scope, &[&after.to_string()]) } else { String::new() };
    Ok(v1::ListRunJournalResponse { events, next_page_token })
}

/// Asks something of a run on behalf of a client; gives the run behind it.
///
/// # Errors
/// When the run does not exist or says no.
pub async fn ask(
    context: &Context,
    who: &Principal,
    run_id: &str,
    mark: Option<&Mark>,
    command: impl FnOnce(Origin) -> Command,
) -> Result<v1::Run, Refusal> {
    let id = convert::run_id(run_id, "run_id")?;
    tell(context, who, id, mark, command).await?;
    shown(context, id).await
}

/// The same of a run whose id is read already, without the run behind it.
///
/// # Errors
/// As [`ask`].
pub async fn tell(
    context: &Context,
    who: &Principal,
    id: RunId,
    mark: Option<&Mark>,
    command: impl FnOnce(Origin) -> Command,
) -> Result<(), Refusal> {
    let command = command(who.origin(mark.map(Mark::journal)));
    let goes_on = matches!(
        command,
        Command::Retry { .. } | Command::Reopen { .. } | Command::ExecuteRollback { .. }
    );
    if goes_on {
        let now = context.runs.clock().now();
        plans::expect_another_end(&**context.runs.store(), id, now).await?;
    }
    Ok(context.runs.ask(id, command).await?)
}

/// A run's row.
///
/// # Errors
/// When there is none, or the store cannot be read.
pub async fn row(context: &Context, id: RunId) -> Result<RunRow, Refusal> {
    let row = context.runs.store().run(id).await?;
    row.ok_or_else(|| crate::runs::Error::NotFound(id).into())
}

/// A run as answers to commands show it.
pub(super) async fn shown(context: &Context, id: RunId) -> Result<v1::Run, Refusal> {
    let row = row(context, id).await?;
    Ok(convert::run(&row, context.runs.why_stuck(id)))
}

/// A run with its params and outputs, without its steps.
///
/// # Errors
/// When the store cannot be read.
pub async fn basic(context: &Context, row: &RunRow) -> Result<v1::Run, Refusal> {
    let id = row.run_id;
    let mut run = convert::run(row, context.runs.why_stuck(id));
    let store = context.runs.store();
    let first = store.journal(id, 0, 1).await?;
    let first = first.first().map(|row| Event::decode(row.kind, &row.body));
    if let Some(Ok(Event::RunStarted(started))) = first {
        run.params = Some(convert::payload(&*started.params));
    }
    if row.ended_at.is_some() {
        let last = store.journal(id, row.version - 1, 1).await?;
        let last = last.first().map(|row| Event::decode(row.kind, &row.body));
        run.outputs = match last {
            Some(Ok(Event::RunEnded { outputs, .. })) => {
                outputs.map(|outputs| convert::payload(&*outputs))
            }
            // A rollback was planned since it ended.
            _ => {
                let (_, state) = context.folded(id).await?;
                state.outputs().map(|outputs| convert::payload(&**outputs))
            }
        };
    }
    Ok(run)
}

fn with_state(mut run: v1::Run, state: &State) -> v1::Run {
    let (failed_step, error) = state.failure();
    run.status = convert::run_status(state.status()).into();
    run.params = Some(convert::payload(&*state.started().params));
    run.outputs = state.outputs().map(|outputs| convert::payload(&**outputs));
    run.metrics = Some(convert::metrics(state));
    run.error = error.unwrap_or_default().to_owned();
    run.failed_step = failed_step.unwrap_or_default().to_owned();
    run.version_sequence = state.version();
    run
}

/// What a run that is only checked would be.
fn would_be(graph: &Graph, started: &engine::event::RunStarted) -> v1::Run {
    v1::Run {
        workflow: graph.name.to_string(),
        version: graph.version.clone(),
        definition_hash: graph.hash.to_string(),
        params: Some(convert::payload(&*started.params)),
        labels: started.labels.clone().into_iter().collect(),
        priority: i32::from(started.priority),
        actor: started.origin.actor.clone(),
        ..v1::Run::default()
    }
}

pub(super) fn hashes(siblings: &BTreeMap<String, Unit>) -> BTreeMap<String, String> {
    siblings.iter().map(|(name, unit)| (name.clone(), unit.graph.hash.to_string())).collect()
}

pub(super) fn check_labels(
    labels: &std::collections::HashMap<String, String>,
) -> Result<(), Refusal> {
    let (count, max) = (labels.len(), limits::RUN_LABELS_MAX);
    if count > max {
        let message = format!("{count} labels were given; {max} are allowed");
        return Err(Refusal::limit("labels", message));
    }
    for (name, value) in labels {
        if name.is_empty() || name.len() > limits::NAME_BYTES_MAX {
            let max = limits::NAME_BYTES_MAX;
            return Err(Refusal::field("labels", format!("a name has 1 to {max} bytes")));
        }
        if value.len() > limits::RUN_LABEL_BYTES_MAX {
            let (size, max) = (value.len(), limits::RUN_LABEL_BYTES_MAX);
            let message = format!("the value of `{name}` has {size} bytes; {max} are allowed");
            return Err(Refusal::field("labels", message));
        }
    }
    Ok(())
}

pub(super) fn check_priority(given: Option<i32>) -> Result<Option<u8>, Refusal> {
    let Some(given) = given else { return Ok(None) };
    match u8::try_from(given) {
        Ok(priority) if priority <= limits::PRIORITY_MAX => Ok(Some(priority)),
        _ => Err(Refusal::field("priority", format!("must be 0 to 9, found {given}"))),
    }
}

pub(super) fn wrong_params(errors: Vec<engine::definition::ParamError>) -> Refusal {
    let errors: Vec<(String, String)> =
        errors.into_iter().map(|error| (convert::param_path(&error.path), error.message)).collect();
    let mut said: Vec<String> =
        errors.iter().take(3).map(|(path, message)| format!("{path}: {message}")).collect();
    if errors.len() > said.len() {
        said.push(format!("{} more", errors.len() - said.len()));
    }
    let refusal = Refusal::new(Reason::InvalidParams, said.join("; "));
    errors.into_iter().fold(refusal, |refusal, (path, message)| refusal.violation(&path, message))
}

/// Maps have no order on the wire, so they are sorted before they are hashed.
fn start_mark(request: &v1::StartRunRequest) -> Result<Option<Mark>, Refusal> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    match &request.source {
        None => {}
        Some(Source::Workflow(name)) => parts.push(name.clone().into_bytes()),
        Some(Source::Definition(definition)) => {
            parts.push(definition.yaml.clone().into_bytes());
            parts.push(definition.file.clone().into_bytes());
            let siblings: BTreeMap<_, _> = definition.siblings.iter().collect();
            let texts = siblings.into_iter().flat_map(|(name, yaml)| [name, yaml]);
            parts.extend(texts.map(|text| text.clone().into_bytes()));
        }
    }
    parts.push(request.params.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default());
    let flags = (request.priority, request.validate_only, request.require_agents);
    parts.push(format!("{flags:?}").into_bytes());
    let labels: BTreeMap<_, _> = request.labels.iter().collect();
    parts.push(format!("{labels:?}").into_bytes());
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Mark::new(&request.request_id, "StartRun", &parts)
}

fn ascending(order_by: &str) -> Result<bool, Refusal> {
    match order_by.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] | ["create_time", "desc"] => Ok(false),
        ["create_time"] | ["create_time", "asc"] => Ok(true),
        _ => {
            let order = super::status::cut(order_by, 100);
            let message = format!(
                "order_by: `{order}` is not known; there are `create_time` and `create_time desc`"
            );
            Err(Refusal::new(Reason::InvalidFilter, message.clone()).violation("order_by", message))
        }
    }
}

/// A filter of `ListRuns`.
#[derive(Debug, Default)]
struct Filter {
    rows: RunFilter,
    stuck: bool,
}

impl Filter {
    fn read(text: &str) -> Result<Self, Refusal> {
        let wrong = |what: String| {
            let message = format!("filter: {what}");
            Refusal::new(Reason::InvalidFilter, message).violation("filter", what)
        };
        let mut filter = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(filter);
        }
        for term in text.split(" AND ") {
            let Some((field, value)) = term.split_once('=') else {
                let term = super::status::cut(term, 100);
                return Err(wrong(format!("`{term}` is not a term like `field=value`")));
            };
            let value = value.trim().trim_matches('"');
            match field.trim() {
                "workflow" => filter.rows.workflow = Some(value.to_owned()),
                "status" => match status(value) {
                    Some(v1::RunStatus::Stuck) => filter.stuck = true,
                    Some(status) => filter.rows.status = i16::try_from(status as i32).ok(),
                    None => {
                        return Err(wrong(format!(
                            "there is no status `{value}`; there are running, waiting, paused, \
                             success, failure, cancelled, rolled_back, stuck"
                        )));
                    }
                },
                "parent_run_id" => {
                    let parent = value.parse().map_err(|_| {
                        wrong(format!("`parent_run_id` must be a run's id, found `{value}`"))
                    })?;
                    filter.rows.parent = Some(parent);
                }
                other => {
                    return Err(wrong(format!(
                        "there is no field `{other}`; there are workflow, status, parent_run_id"
                    )));
                }
            }
        }
        Ok(filter)
    }
}

fn status(word: &str) -> Option<v1::RunStatus> {
    let word = word.to_ascii_uppercase();
    let name = if word.starts_with("RUN_STATUS_") { word } else { format!("RUN_STATUS_{word}") };
    v1::RunStatus::from_str_name(&name).filter(|it| *it != v1::RunStatus::Unspecified)
}

/// How long ago something was.
#[must_use]
pub fn ago(context: &Context, since: Instant) -> prost_types::Duration {
    convert::duration(context.runs.clock().now().since(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let filter = Filter::read("workflow=a b AND status=rolled_back").unwrap();
        assert_eq!(filter.rows.workflow.as_deref(), Some("a b"));
        assert_eq!(filter.rows.status, Some(7));
        assert!(Filter::read("status=RUN_STATUS_STUCK").unwrap().stuck);
        let parent = "parent_run_id=\"018bcfe5-6800-7000-8000-000000000000\"";
        assert!(Filter::read(parent).unwrap().rows.parent.is_some());
    }

    #[test]
    fn wrong_filters_and_orders_say_what_there_is() {
        for (text, part) in [
            ("name=a", "there are workflow, status, parent_run_id"),
            ("status=done", "there are running"),
            ("status=unspecified", "there are running"),
            ("parent_run_id=1", "a run's id"),
            ("workflow", "field=value"),
        ] {
            let status = tonic::Status::from(Filter::read(text).unwrap_err());
            assert!(status.message().contains(part), "{text}: {}", status.message());
        }
        assert!(!ascending("").unwrap());
        assert!(!ascending("create_time  desc").unwrap());
        assert!(ascending("create_time").unwrap());
        assert_eq!(ascending("name").unwrap_err().reason(), Reason::InvalidFilter);
    }

    #[test]
    fn the_order_of_labels_does_not_change_a_request() {
        let request = |labels: [(&str, &str); 2]| v1::StartRunRequest {
            labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            request_id: "r".to_owned(),
            ..Default::default()
        };
        let journal = |request| start_mark(&request).unwrap().unwrap().journal();
        let one = journal(request([("a", "1"), ("b", "2")]));
        assert_eq!(one, journal(request([("b", "2"), ("a", "1")])));
        assert_ne!(one, journal(request([("a", "1"), ("b", "3")])));
    }

    #[test]
    fn priorities_and_labels_are_bounded() {
        assert_eq!(check_priority(Some(9)).unwrap(), Some(9));
        assert!(check_priority(Some(10)).is_err());
        assert!(check_priority(Some(-1)).is_err());
        let many = (0..65).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(check_labels(&many).unwrap_err().reason(), Reason::LimitExceeded);
    }
}
