//! `TriageService`: issues are placed with agents, outcomes confirmed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ::triage::{Assignment, Basis, Example, Input, Issue, Problem, Triage};
use contracts::v1::triage_service_server::TriageService;
use contracts::v1::{self, Reason};
use engine::Instant;
use prost::Message as _;
use serde_json::json;
use store::{Changed, Cursor, DocumentFilter, DocumentRow, DocumentWrite, RequestRow};
use tonic::{Request, Response, Status};

use super::auth::Principal;
use super::request::{Known, Mark};
use super::status::Refusal;
use super::triage_convert::{self as to, View};
use super::{Context, page};
use crate::documents::Kind;
use crate::escalations::issues;
use crate::triages::learning::Knowledge;
use crate::triages::outcome::Outcome;
use crate::triages::{self, Stored, Written};
use crate::{ids, limits};

/// The list that page tokens of `ListTriages` are good for.
const LIST: &str = "ListTriages";
/// How often outcomes are written when others write the same ones.
const ATTEMPTS: usize = 5;

/// Serves `TriageService`.
#[derive(Clone, Debug)]
pub struct TriageApi {
    context: Context,
}

impl TriageApi {
    /// Serves what `context` has.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl TriageService for TriageApi {
    async fn triage_issues(
        &self,
        request: Request<v1::TriageIssuesRequest>,
    ) -> Result<Response<v1::TriageIssuesResponse>, Status> {
        let who = Principal::of(&request);
        Ok(Response::new(triage_issues(&self.context, &who, request.into_inner()).await?))
    }

    async fn get_triage(
        &self,
        request: Request<v1::GetTriageRequest>,
    ) -> Result<Response<v1::GetTriageResponse>, Status> {
        let who = Principal::of(&request);
        let (row, stored) = get(&self.context, &who, &request.into_inner().triage_id).await?;
        let triage = Some(to::of_row(&row, &stored, View::Whole));
        Ok(Response::new(v1::GetTriageResponse { triage }))
    }

    async fn list_triages(
        &self,
        request: Request<v1::ListTriagesRequest>,
    ) -> Result<Response<v1::ListTriagesResponse>, Status> {
        let who = Principal::of(&request);
        Ok(Response::new(list(&self.context, &who, request.into_inner()).await?))
    }

    async fn confirm_outcomes(
        &self,
        request: Request<v1::ConfirmOutcomesRequest>,
    ) -> Result<Response<v1::ConfirmOutcomesResponse>, Status> {
        let who = Principal::of(&request);
        Ok(Response::new(confirm(&self.context, &who, request.into_inner()).await?))
    }

    async fn get_triage_model(
        &self,
        request: Request<v1::GetTriageModelRequest>,
    ) -> Result<Response<v1::GetTriageModelResponse>, Status> {
        let who = Principal::of(&request);
        let learning = &self.context.learning;
        let standing = learning.standing(&who.tenant, request.into_inner().wait).await;
        let model = Some(to::model(&standing.map_err(Refusal::from)?));
        Ok(Response::new(v1::GetTriageModelResponse { model }))
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let message = problem.to_string();
        let (field, wrong) = match &problem {
            Problem::Empty => return Refusal::field("issues", message),
            Problem::TooMany(_) => return Refusal::limit("issues", message),
            Problem::Cycle(_) => {
                let wrong = message.clone();
                return Refusal::new(Reason::IssueCycle, message)
                    .violation("issues.depends_on", wrong);
            }
            Problem::Field { index, field, what } => {
                (format!("issues[{index}].{field}"), what.clone())
            }
            Problem::DuplicateId { index, .. } => (format!("issues[{index}].id"), message.clone()),
            Problem::Unknown { index, .. } => {
                (format!("issues[{index}].depends_on"), message.clone())
            }
        };
        Refusal::new(Reason::InvalidField, message).violation(&field, wrong)
    }
}

async fn triage_issues(
    context: &Context,
    who: &Principal,
    request: v1::TriageIssuesRequest,
) -> Result<v1::TriageIssuesResponse, Refusal> {
    let store = &**context.runs.store();
    let asked = v1::TriageIssuesRequest { request_id: String::new(), ..request };
    let mark = Mark::new(&request.request_id, "TriageIssues", &[&asked.encode_to_vec()])?;
    let validate_only = asked.validate_only;
    if let Some(mark) = mark.as_ref().filter(|_| !validate_only)
        && let Known::Before(row) = mark.known(store, who).await?
    {
        return before(context, who, &row).await;
    }
    let issues = asked.issues.into_iter().enumerate();
    let issues: Vec<Issue> = issues
        .map(|(index, issue)| to::issue(issue, &format!("issues[{index}]")))
        .collect::<Result<_, _>>()?;
    let (system, constraints) = (to::system(asked.system), to::constraints(asked.constraints)?);
    ::triage::issue::check(&issues)?;
    let now = context.runs.clock().now();
    let knowledge = context.learning.knowledge(&who.tenant).await?;
    let creator = who.subject.clone();
    let decided = Triage::default();
    let stored = Stored { creator, issues, system, constraints, decided, ..Stored::default() };
    let stored = decide(stored, knowledge, now).await?;
    if validate_only {
        let triage = Some(to::triage("", now, &stored, View::Decisions));
        return Ok(v1::TriageIssuesResponse { triage });
    }
    let id = ids::unique().to_string();
    let request = mark.as_ref().map(|mark| RequestRow {
        response: Some(id.clone().into_bytes()),
        ..mark.row(who, None, now)
    });
    let counts = &stored.decided;
    let mut documents = vec![document(&id, who, &stored, now)?];
    documents.extend(issues::open_for_triage(&id, &who.tenant, &stored, now)?);
    let written = Written {
        documents,
        resource: triages::resource(&id),
        actor: who.subject.clone(),
        action: "triage.create",
        body: json!({
            "issues": stored.issues.len(),
            "assigned": counts.assignments.len(),
            "escalated": counts.escalated.len(),
            "model_version": counts.model_version,
        }),
        request,
    };
    match triages::write(store, written, now).await? {
        Changed::Done => {
            if !stored.decided.escalated.is_empty() {
                context.runs.asked().notify_one();
            }
            let triage = Some(to::triage(&id, now, &stored, View::Decisions));
            Ok(v1::TriageIssuesResponse { triage })
        }
        // Somebody asked the same at the same time.
        Changed::DuplicateRequest(_) | Changed::Conflict => {
            if let Some(mark) = &mark
                && let Known::Before(row) = mark.known(store, who).await?
            {
                return before(context, who, &row).await;
            }
            Err(Refusal::unavailable("the triage could not be kept; try again"))
        }
    }
}

/// The answer that a request had before.
async fn before(
    context: &Context,
    who: &Principal,
    row: &RequestRow,
) -> Result<v1::TriageIssuesResponse, Refusal> {
    let id = String::from_utf8_lossy(row.response.as_deref().unwrap_or_default()).into_owned();
    let (row, stored) = get(context, who, &id).await?;
    Ok(v1::TriageIssuesResponse { triage: Some(to::of_row(&row, &stored, View::Decisions)) })
}

async fn decide(stored: Stored, knowledge: Knowledge, now: Instant) -> Result<Stored, Refusal> {
    let work = move || -> Result<Stored, Problem> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let decided = ::triage::decide(&Input {
            issues: &stored.issues,
            system: &stored.system,
            constraints: &stored.constraints,
            agents: &knowledge.agents,
            classifier: &knowledge.classifier,
            history: &knowledge.learned.history,
            now_ms: now.0.div_euclid(1_000),
            threads: threads.min(limits::TRIAGE_THREADS),
        })?;
        Ok(Stored { decided, ..stored })
    };
    let decided = tokio::task::spawn_blocking(work).await;
    Ok(decided.map_err(|error| Refusal::internal(&error))??)
}

fn document(
    id: &str,
    who: &Principal,
    stored: &Stored,
    now: Instant,
) -> Result<DocumentWrite, Refusal> {
    let row = DocumentRow {
        kind: Kind::Triage.number(),
        id: id.to_owned(),
        tenant: who.tenant.clone(),
        parent: None,
        status: triages::STATUS,
        created_at: now.0,
        updated_at: now.0,
        due_at: None,
        version: 1,
        body: serde_json::to_vec(stored).map_err(|error| Refusal::internal(&error))?,
    };
    Ok(DocumentWrite { row, expected_version: 0 })
}

async fn get(
    context: &Context,
    who: &Principal,
    id: &str,
) -> Result<(DocumentRow, Stored), Refusal> {
    if id.is_empty() {
        return Err(Refusal::field("triage_id", "must be given"));
    }
    let found = triages::get(&**context.runs.store(), &who.tenant, id).await?;
    found.ok_or_else(|| {
        let message = format!("there is no triage `{}`", super::status::cut(id, 200));
        Refusal::missing(Reason::TriageNotFound, "triage", id, message)
    })
}

async fn list(
    context: &Context,
    who: &Principal,
    request: v1::ListTriagesRequest,
) -> Result<v1::ListTriagesResponse, Refusal> {
    let size = page::size(request.page_size)?.min(limits::TRIAGES_PAGE_MAX);
    let after = match page::place::<2>(LIST, &request.page_token)? {
        Some([at, id]) => Some(Cursor { at: page::part(&at)?, id }),
        None => None,
    };
    let filter = DocumentFilter {
        kind: Kind::Triage.number(),
        tenant: Some(who.tenant.clone()),
        ..DocumentFilter::default()
    };
    let limit = u32::try_from(size).unwrap_or(u32::MAX);
    let rows = context.runs.store().documents(&filter, after, false, limit).await?;
    let next_page_token = match rows.last() {
        Some(last) if rows.len() == size => {
            page::token(LIST, &[&last.created_at.to_string(), &last.id])
        }
        _ => String::new(),
    };
    let mut triages = Vec::with_capacity(rows.len());
    for row in &rows {
        triages.push(to::of_row(row, &Stored::read(row)?, View::Summary));
    }
    Ok(v1::ListTriagesResponse { triages, next_page_token })
}

async fn confirm(
    context: &Context,
    who: &Principal,
    request: v1::ConfirmOutcomesRequest,
) -> Result<v1::ConfirmOutcomesResponse, Refusal> {
    let store = &**context.runs.store();
    let asked = v1::ConfirmOutcomesRequest { request_id: String::new(), ..request };
    let mark = Mark::new(&request.request_id, "ConfirmOutcomes", &[&asked.encode_to_vec()])?;
    if asked.outcomes.is_empty() {
        return Err(Refusal::field("outcomes", "must name at least one"));
    }
    if asked.outcomes.len() > limits::OUTCOMES_MAX {
        let (found, max) = (asked.outcomes.len(), limits::OUTCOMES_MAX);
        let message = format!("{found} outcomes: one request takes {max} at most");
        return Err(Refusal::limit("outcomes", message));
    }
    let known = match &mark {
        Some(mark) => mark.known(store, who).await?,
        None => Known::New,
    };
    if matches!(known, Known::New) {
        keep(context, who, asked.outcomes.clone(), mark.as_ref()).await?;
        context.learning.confirmed(&who.tenant).await;
    }
    let ratio = context.learning.right_ratio(&who.tenant).await?;
    Ok(v1::ConfirmOutcomesResponse {
        confirmed: i32::try_from(asked.outcomes.len()).unwrap_or(i32::MAX),
        first_assignment_correct_ratio: ratio,
    })
}

async fn keep(
    context: &Context,
    who: &Principal,
    outcomes: Vec<v1::Outcome>,
    mark: Option<&Mark>,
) -> Result<(), Refusal> {
    let store = &**context.runs.store();
    let now = context.runs.clock().now();
    let mut read = Vec::with_capacity(outcomes.len());
    let mut seen = BTreeSet::new();
    let mut last: Option<(String, Arc<Stored>)> = None;
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let field = format!("outcomes[{index}]");
        let triage = outcome.triage_id.clone();
        let stored = match &last {
            _ if triage.is_empty() => None,
            Some((id, stored)) if *id == triage => Some(Arc::clone(stored)),
            _ => {
                let stored = Arc::new(get(context, who, &triage).await?.1);
                last = Some((triage.clone(), Arc::clone(&stored)));
                Some(stored)
            }
        };
        let outcome = one(outcome, stored.as_deref(), &field, who, now)?;
        let id = outcome.id(&who.tenant, &triage);
        if !seen.insert(id.clone()) {
            return Err(Refusal::field(&field, "is about the same issue as one before it"));
        }
        read.push((id, triage, outcome));
    }
    for _ in 0..ATTEMPTS {
        let mut documents = Vec::with_capacity(read.len());
        for (id, triage, outcome) in &read {
            let known = store.document(Kind::Outcome.number(), id).await?;
            documents.push(outcome_write(id, triage, outcome, who, known, now)?);
        }
        let written = Written {
            documents,
            resource: format!("triage-outcomes/{}", who.tenant),
            actor: who.subject.clone(),
            action: "triage.confirm",
            body: json!({
                "outcomes": read.iter().take(limits::OUTCOMES_AUDITED).map(|(_, triage, outcome)| {
                    let Example { id, agent_type, .. } = &outcome.example;
                    json!([triage, id, outcome.assigned, agent_type])
                }).collect::<Vec<_>>(),
                "count": read.len(),
            }),
            request: mark.map(|mark| mark.row(who, None, now)),
        };
        match triages::write(store, written, now).await? {
            Changed::Done => return Ok(()),
            Changed::Conflict => {}
            Changed::DuplicateRequest(_) => {
                let Some(mark) = mark else { return Ok(()) };
                return mark.known(store, who).await.map(|_| ());
            }
        }
    }
    Err(Refusal::unavailable("others confirm the same outcomes just now; try again"))
}

/// One outcome, checked and joined with what its triage said.
fn one(
    outcome: v1::Outcome,
    stored: Option<&Stored>,
    field: &str,
    who: &Principal,
    now: Instant,
) -> Result<Outcome, Refusal> {
    let missing = |name: &str, what: &str| Refusal::field(&format!("{field}.{name}"), what);
    let id = outcome.issue_id.clone();
    let issue = match stored {
        Some(stored) => {
            let found = stored.issues.iter().find(|issue| issue.id == id);
            found.cloned().ok_or_else(|| missing("issue_id", "is no issue of this triage"))?
        }
        None => {
            let issue = outcome.issue.clone().ok_or_else(|| {
                missing("issue", "must be given where there is no triage, with its title")
            })?;
            let mut issue = to::issue(issue, &format!("{field}.issue"))?;
            if issue.id.is_empty() {
                issue.id = if id.is_empty() { "outcome".to_owned() } else { id };
            }
            issue.depends_on.clear();
            ::triage::issue::check(std::slice::from_ref(&issue)).map_err(
                |problem| match problem {
                    Problem::Field { field, what, .. } => missing(&format!("issue.{field}"), &what),
                    other => missing("issue", &other.to_string()),
                },
            )?;
            issue
        }
    };
    let placed = stored.and_then(|stored| placed(stored, &issue.id));
    let assigned = placed.and_then(first_given);
    let agent_type = match (outcome.agent_type.is_empty(), placed) {
        (false, _) => outcome.agent_type,
        (true, Some(placed)) => placed.agent_type.clone(),
        (true, None) => {
            let what = "must be given: no triage placed this issue with an agent";
            return Err(missing("agent_type", what));
        }
    };
    if agent_type.len() > limits::NAME_BYTES_MAX || agent_type.chars().any(char::is_control) {
        return Err(missing("agent_type", "is not the name of an agent type"));
    }
    let taken_for = placed.filter(|placed| placed.agent_type == agent_type);
    let category = match outcome.category.is_empty() {
        true => taken_for.map(|placed| placed.category.clone()).unwrap_or_default(),
        false => outcome.category.trim().to_lowercase(),
    };
    let duration = outcome.duration.and_then(|duration| Duration::try_from(duration).ok());
    let duration_ms = duration.and_then(|duration| u64::try_from(duration.as_millis()).ok());
    Ok(Outcome {
        example: Example {
            id: issue.id,
            title: issue.title,
            description: ::triage::words::read(&issue.description).to_owned(),
            component: issue.component,
            agent_type,
            category: category.clone(),
        },
        assigned,
        category,
        mended: outcome.mended.unwrap_or(true),
        placed_only: false,
        duration_ms,
        at_ms: now.0.div_euclid(1_000),
        by: who.subject.clone(),
    })
}

/// Who has an issue, or the one that it is a duplicate of.
fn placed<'a>(stored: &'a Stored, id: &str) -> Option<&'a Assignment> {
    let decided = &stored.decided;
    let first = decided.duplicates.iter().find(|duplicate| duplicate.issue_id == id);
    let id = first.map_or(id, |duplicate| duplicate.of.as_str());
    decided.assignments.iter().find(|assignment| assignment.issue_id == id)
}

/// The agent type to which the triage itself gave an issue.
fn first_given(assignment: &Assignment) -> Option<String> {
    match assignment.basis {
        Basis::Person if assignment.instead_of.is_empty() => None,
        Basis::Person => Some(assignment.instead_of.clone()),
        _ => Some(assignment.agent_type.clone()),
    }
}

fn outcome_write(
    id: &str,
    triage: &str,
    outcome: &Outcome,
    who: &Principal,
    known: Option<DocumentRow>,
    now: Instant,
) -> Result<DocumentWrite, Refusal> {
    let version = known.as_ref().map_or(0, |row| row.version);
    let row = DocumentRow {
        kind: Kind::Outcome.number(),
        id: id.to_owned(),
        tenant: who.tenant.clone(),
        parent: (!triage.is_empty()).then(|| triage.to_owned()),
        status: 1,
        created_at: known.map_or(now.0, |row| row.created_at),
        updated_at: now.0,
        due_at: None,
        version: version + 1,
        body: serde_json::to_vec(outcome).map_err(|error| Refusal::internal(&error))?,
    };
    Ok(DocumentWrite { row, expected_version: version })
}
