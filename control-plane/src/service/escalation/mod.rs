//! `EscalationService`: questions to people are listed, taken up, talked about and decided.

mod decide;

use std::collections::HashMap;

use contracts::v1::escalation_service_server::EscalationService;
use contracts::v1::{self, EscalationDecision, EscalationTopic, Reason};
use engine::Instant;
use serde_json::{Value, json};
use store::{Changed, Cursor, DocumentFilter, DocumentRow};
use tonic::{Request, Response, Status};

use super::auth::Principal;
use super::request::{Known, Mark};
use super::status::{Refusal, cut};
use super::{Context, convert, page};
use crate::audit::{self, Entry};
use crate::documents::Kind;
use crate::escalations::{self, Choice, Escalation, Handling, Proposal, Topic};
use crate::limits;

/// The list that page tokens of `ListEscalations` are good for.
const LIST: &str = "ListEscalations";
/// What can be filtered by.
const FIELDS: &str =
    "`status`, `topic`, `run_id`, `triage_id`, `plan_id`, `assignee` and `overdue`";
/// How often a claim or comment is written when others write the same one.
const ATTEMPTS: usize = 5;

/// Serves `EscalationService`.
#[derive(Clone, Debug)]
pub struct EscalationApi {
    context: Context,
}

impl EscalationApi {
    /// Serves what `context` has.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl EscalationService for EscalationApi {
    async fn list_escalations(
        &self,
        request: Request<v1::ListEscalationsRequest>,
    ) -> Result<Response<v1::ListEscalationsResponse>, Status> {
        let who = Principal::of(&request);
        Ok(Response::new(list(&self.context, &who, request.into_inner()).await?))
    }

    async fn get_escalation(
        &self,
        request: Request<v1::GetEscalationRequest>,
    ) -> Result<Response<v1::GetEscalationResponse>, Status> {
        let who = Principal::of(&request);
        let id = request.into_inner().escalation_id;
        let escalation = Some(Found::get(&self.context, &who, &id).await?.shown(&self.context));
        Ok(Response::new(v1::GetEscalationResponse { escalation }))
    }

    async fn claim_escalation(
        &self,
        request: Request<v1::ClaimEscalationRequest>,
    ) -> Result<Response<v1::ClaimEscalationResponse>, Status> {
        let who = Principal::of(&request);
        let escalation = Some(claim(&self.context, &who, request.into_inner()).await?);
        Ok(Response::new(v1::ClaimEscalationResponse { escalation }))
    }

    async fn comment_escalation(
        &self,
        request: Request<v1::CommentEscalationRequest>,
    ) -> Result<Response<v1::CommentEscalationResponse>, Status> {
        let who = Principal::of(&request);
        let escalation = Some(comment(&self.context, &who, request.into_inner()).await?);
        Ok(Response::new(v1::CommentEscalationResponse { escalation }))
    }

    async fn decide_escalation(
        &self,
        request: Request<v1::DecideEscalationRequest>,
    ) -> Result<Response<v1::DecideEscalationResponse>, Status> {
        let who = Principal::of(&request);
        let escalation = Some(decide::decide(&self.context, &who, request.into_inner()).await?);
        Ok(Response::new(v1::DecideEscalationResponse { escalation }))
    }
}

/// A question as it stands, with what people do about it.
struct Found {
    row: DocumentRow,
    question: Escalation,
    handling: Handling,
    /// The version of `handling`; 0: nothing was done yet.
    version: i64,
}

impl Found {
    async fn get(context: &Context, who: &Principal, id: &str) -> Result<Self, Refusal> {
        if id.is_empty() {
            return Err(Refusal::field("escalation_id", "must be given"));
        }
        let store = &**context.runs.store();
        let row = match id.len() > store::limits::TEXT_BYTES_MAX {
            true => None,
            false => store.document(Kind::Escalation.number(), id).await?,
        };
        let row = row.filter(|row| row.tenant == who.tenant).ok_or_else(|| {
            let id = cut(id, 200);
            let message = format!(
                "there is no escalation `{id}`; `orchestrator escalations list --all` shows those \
                 there are"
            );
            Refusal::missing(Reason::EscalationNotFound, "escalation", &id, message)
        })?;
        let question = Escalation::read(&row)?;
        let (handling, version) = Handling::of(store, id).await?;
        Ok(Self { row, question, handling, version })
    }

    fn due(&self, context: &Context) -> Instant {
        Instant(self.row.created_at).after(context.policy.escalation_due)
    }

    fn is_overdue(&self, context: &Context) -> bool {
        self.question.settled.is_none() && self.due(context) <= context.runs.clock().now()
    }

    /// Refuses when nobody needs to decide any more.
    fn expect_open(&self) -> Result<(), Refusal> {
        let Some(settled) = &self.question.settled else { return Ok(()) };
        let id = &self.row.id;
        let (status, message) = match settled.choice {
            Some(choice) => {
                let by = &settled.by;
                ("decided", format!("the escalation `{id}` was decided by `{by}`: {choice}"))
            }
            None => {
                let why = &settled.comment;
                ("withdrawn", format!("the escalation `{id}` needs no decision any more: {why}"))
            }
        };
        let refusal = Refusal::new(Reason::EscalationSettled, message);
        Err(refusal.metadata("status", status).metadata("decided_by", settled.by.clone()))
    }

    fn expect_choice(&self, choice: Choice) -> Result<(), Refusal> {
        if self.question.choices.contains(&choice) {
            return Ok(());
        }
        let there: Vec<String> = self.question.choices.iter().map(ToString::to_string).collect();
        let there = there.join(", ");
        let message = format!("`{choice}` is not offered here; offered are: {there}");
        Err(Refusal::new(Reason::DecisionNotOffered, message).metadata("choices", there))
    }

    /// As clients see it.
    fn shown(&self, context: &Context) -> v1::Escalation {
        let Self { row, question, handling, .. } = self;
        let settled = question.settled.as_ref();
        let time = |at: Instant| convert::timestamp(at);
        let comment = |comment: &escalations::handling::Comment| v1::EscalationComment {
            author: comment.author.clone(),
            time: Some(time(comment.at)),
            text: comment.text.clone(),
        };
        v1::Escalation {
            escalation_id: row.id.clone(),
            topic: topic(question.topic).into(),
            status: i32::from(row.status),
            question: question.question.clone(),
            detail: question.detail.clone(),
            run_id: question.run.map(|run| run.to_string()).unwrap_or_default(),
            step: question.step.clone(),
            triage_id: question.triage.clone(),
            issue_id: question.issue.clone(),
            plan_id: question.plan.clone(),
            severity: question.severity.clone(),
            choices: question.choices.iter().map(|it| i32::from(decision(*it))).collect(),
            proposal: question.proposal.as_ref().map(route),
            create_time: Some(time(Instant(row.created_at))),
            due_time: Some(time(self.due(context))),
            overdue: self.is_overdue(context),
            step_timeout_time: question.until.map(time),
            reminders: i32::try_from(handling.reminders).unwrap_or(i32::MAX),
            assignee: handling.assignee.clone(),
            claim_time: handling.claimed_at.map(time),
            comments: handling.comments.iter().map(comment).collect(),
            decision: settled.and_then(|it| it.choice).map(decision).unwrap_or_default().into(),
            decided_by: settled.map(|it| it.by.clone()).unwrap_or_default(),
            settle_time: settled.map(|it| time(it.at)),
            settle_comment: settled.map(|it| it.comment.clone()).unwrap_or_default(),
            route: settled.and_then(|it| it.outcome.as_ref()).map(route),
        }
    }
}

fn topic(topic: Topic) -> EscalationTopic {
    match topic {
        Topic::Step => EscalationTopic::Step,
        Topic::Undo => EscalationTopic::Undo,
        Topic::Issue => EscalationTopic::Issue,
        Topic::Recovery => EscalationTopic::Recovery,
    }
}

fn decision(choice: Choice) -> EscalationDecision {
    match choice {
        Choice::Approve => EscalationDecision::Approve,
        Choice::Reject => EscalationDecision::Reject,
        Choice::Amend => EscalationDecision::Amend,
        Choice::Reroute => EscalationDecision::Reroute,
        Choice::Retry => EscalationDecision::Retry,
        Choice::Done => EscalationDecision::Done,
        Choice::Skip => EscalationDecision::Skip,
    }
}

fn route(proposal: &Proposal) -> v1::EscalationRoute {
    let params =
        (!proposal.params.is_null()).then(|| convert::payload(proposal.params.to_string()));
    v1::EscalationRoute {
        agent_type: proposal.agent.clone(),
        action: proposal.action.clone(),
        params,
        confidence: proposal.confidence,
    }
}

/// What a list is filtered by.
#[derive(Default)]
struct Filter {
    status: Option<i16>,
    parent: Option<String>,
    topic: Option<Topic>,
    assignee: Option<String>,
    overdue: Option<bool>,
}

impl Filter {
    fn read(text: &str) -> Result<Self, Refusal> {
        let mut filter = Self::default();
        for (field, value) in page::terms(text)? {
            match field {
                "status" => {
                    let status = match value {
                        "open" => escalations::Status::Open,
                        "decided" => escalations::Status::Decided,
                        "withdrawn" => escalations::Status::Withdrawn,
                        _ => return Err(wrong_value(field, "open, decided or withdrawn")),
                    };
                    filter.status = Some(status.number());
                }
                "topic" => {
                    filter.topic = Some(match value {
                        "step" => Topic::Step,
                        "undo" => Topic::Undo,
                        "issue" => Topic::Issue,
                        "recovery" => Topic::Recovery,
                        _ => return Err(wrong_value(field, "step, undo, issue or recovery")),
                    });
                }
                "run_id" | "triage_id" | "plan_id" if filter.parent.is_some() => {
                    let wrong = "one of `run_id`, `triage_id` and `plan_id` is allowed".to_owned();
                    return Err(page::wrong_filter(wrong));
                }
                "run_id" | "triage_id" | "plan_id" => filter.parent = Some(value.to_owned()),
                "assignee" => filter.assignee = Some(value.to_owned()),
                "overdue" => match value {
                    "true" => filter.overdue = Some(true),
                    "false" => filter.overdue = Some(false),
                    _ => return Err(wrong_value(field, "true or false")),
                },
                _ => return Err(page::no_field(field, FIELDS)),
            }
        }
        Ok(filter)
    }

    /// Whether it fits as far as the store has not looked.
    fn fits(&self, found: &Found, context: &Context) -> bool {
        self.topic.is_none_or(|topic| found.question.topic == topic)
            && self.assignee.as_ref().is_none_or(|it| found.handling.assignee == *it)
            && self.overdue.is_none_or(|it| found.is_overdue(context) == it)
    }
}

fn wrong_value(field: &str, allowed: &str) -> Refusal {
    page::wrong_filter(format!("`{field}` is {allowed}"))
}

async fn list(
    context: &Context,
    who: &Principal,
    request: v1::ListEscalationsRequest,
) -> Result<v1::ListEscalationsResponse, Refusal> {
    let size = page::size(request.page_size)?;
    let filter = Filter::read(&request.filter)?;
    let scope = format!("{LIST} {}", request.filter.trim());
    let mut after = match page::place::<2>(&scope, &request.page_token)? {
        Some([at, id]) => Some(Cursor { at: page::part(&at)?, id }),
        None => None,
    };
    let wanted = DocumentFilter {
        kind: Kind::Escalation.number(),
        tenant: Some(who.tenant.clone()),
        parent: filter.parent.clone(),
        status: filter.status,
    };
    let (mut escalations, mut looked) = (Vec::new(), 0);
    loop {
        let limit = u32::try_from(size).unwrap_or(u32::MAX);
        let rows = context.runs.store().documents(&wanted, after, false, limit).await?;
        let is_last = rows.len() < size;
        looked += rows.len();
        after = None;
        for found in with_handling(context, rows).await? {
            after = Some(Cursor { at: found.row.created_at, id: found.row.id.clone() });
            if filter.fits(&found, context) {
                let comments = Vec::new();
                escalations.push(v1::Escalation { comments, ..found.shown(context) });
            }
            if escalations.len() == size {
                break;
            }
        }
        if is_last && escalations.len() < size {
            return Ok(v1::ListEscalationsResponse { escalations, ..Default::default() });
        }
        if escalations.len() == size || looked >= limits::ESCALATIONS_LOOKED_THROUGH {
            break;
        }
    }
    let place = after.map(|after| page::token(&scope, &[&after.at.to_string(), &after.id]));
    let next_page_token = place.unwrap_or_default();
    Ok(v1::ListEscalationsResponse { escalations, next_page_token })
}

/// When the open questions were opened, the oldest first; a bounded number of them.
pub(super) async fn opened(
    context: &Context,
    who: &Principal,
) -> Result<Vec<Instant>, store::Error> {
    let open = DocumentFilter {
        kind: Kind::Escalation.number(),
        tenant: Some(who.tenant.clone()),
        parent: None,
        status: Some(escalations::Status::Open.number()),
    };
    let limit = u32::try_from(limits::ESCALATIONS_COUNTED).unwrap_or(u32::MAX);
    let rows = context.runs.store().documents(&open, None, true, limit).await?;
    Ok(rows.iter().map(|row| Instant(row.created_at)).collect())
}

async fn with_handling(context: &Context, rows: Vec<DocumentRow>) -> Result<Vec<Found>, Refusal> {
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let kind = Kind::EscalationHandling.number();
    let handlings = context.runs.store().documents_of(kind, &ids).await?;
    let mut handlings: HashMap<String, DocumentRow> =
        handlings.into_iter().map(|row| (row.id.clone(), row)).collect();
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let question = Escalation::read(&row)?;
        let (handling, version) = match handlings.remove(&row.id) {
            Some(row) => (Handling::read(&row)?, row.version),
            None => (Handling::default(), 0),
        };
        all.push(Found { row, question, handling, version });
    }
    Ok(all)
}

async fn claim(
    context: &Context,
    who: &Principal,
    request: v1::ClaimEscalationRequest,
) -> Result<v1::Escalation, Refusal> {
    let v1::ClaimEscalationRequest { escalation_id: id, assignee, release, take_over, request_id } =
        request;
    let chars = assignee.chars().count();
    if chars > limits::ASSIGNEE_CHARS_MAX || assignee.chars().any(char::is_control) {
        let max = limits::ASSIGNEE_CHARS_MAX;
        let wrong = format!("must be a name of {max} characters at most");
        return Err(Refusal::field("assignee", wrong));
    }
    if release && !assignee.is_empty() {
        return Err(Refusal::field("assignee", "is not given where the claim is released"));
    }
    let flags = [u8::from(release), u8::from(take_over)];
    let parts = [id.as_bytes(), assignee.as_bytes(), &flags];
    let mark = Mark::new(&request_id, "ClaimEscalation", &parts)?;
    let assignee = match (release, assignee.is_empty()) {
        (true, _) => String::new(),
        (false, true) => who.subject.clone(),
        (false, false) => assignee,
    };
    let action = if release { "escalation.release" } else { "escalation.claim" };
    handle(context, who, &id, mark.as_ref(), action, |handling, now| {
        let held = &handling.assignee;
        if !take_over && !release && !held.is_empty() && *held != assignee {
            let message = format!("`{held}` has taken the escalation `{id}` up");
            let refusal = Refusal::new(Reason::EscalationClaimed, message);
            return Err(refusal.metadata("assignee", held.clone()));
        }
        let before = held.clone();
        handling.claim(assignee.clone(), now);
        Ok(json!({"assignee": assignee, "before": before}))
    })
    .await
}

async fn comment(
    context: &Context,
    who: &Principal,
    request: v1::CommentEscalationRequest,
) -> Result<v1::Escalation, Refusal> {
    let v1::CommentEscalationRequest { escalation_id: id, text, request_id } = request;
    if text.trim().is_empty() {
        return Err(Refusal::field("text", "must be given"));
    }
    short(&text, "text")?;
    let mark = Mark::new(&request_id, "CommentEscalation", &[id.as_bytes(), text.as_bytes()])?;
    handle(context, who, &id, mark.as_ref(), "escalation.comment", |handling, now| {
        let added = handling.comment(who.subject.clone(), text.clone(), now);
        added.map_err(|max| {
            let message = format!("the escalation `{id}` has {max} comments; more are not kept");
            Refusal::limit("comments", message)
        })?;
        Ok(json!({"text": audit::said(&text)}))
    })
    .await
}

/// Changes what people do about a question; `change` gives what the audit log says of it.
async fn handle(
    context: &Context,
    who: &Principal,
    id: &str,
    mark: Option<&Mark>,
    action: &'static str,
    change: impl Fn(&mut Handling, Instant) -> Result<Value, Refusal>,
) -> Result<v1::Escalation, Refusal> {
    let store = &**context.runs.store();
    if let Some(mark) = mark
        && let Known::Before(_) = mark.known(store, who).await?
    {
        return Ok(Found::get(context, who, id).await?.shown(context));
    }
    let now = context.runs.clock().now();
    for _ in 0..ATTEMPTS {
        let mut found = Found::get(context, who, id).await?;
        found.expect_open()?;
        let body = change(&mut found.handling, now)?;
        let write = found.handling.write(&found.row, found.version, now);
        let write = write.map_err(|error| Refusal::internal(&error))?;
        let actor = who.subject.clone();
        let entry = Entry { resource: escalations::resource(id), actor, action, body };
        let request = mark.map(|mark| mark.row(who, None, now));
        match audit::change(store, vec![write], &[entry], request, now).await? {
            Changed::Done => return Ok(found.shown(context)),
            Changed::DuplicateRequest(_) => {
                return Ok(Found::get(context, who, id).await?.shown(context));
            }
            Changed::Conflict => {}
        }
    }
    Err(Refusal::unavailable("others write to the same escalation; try again"))
}

fn short(text: &str, field: &str) -> Result<(), Refusal> {
    let (size, max) = (text.len(), limits::REQUEST_TEXT_BYTES_MAX);
    if size > max {
        return Err(Refusal::field(field, format!("has {size} bytes; {max} are allowed")));
    }
    Ok(())
}
