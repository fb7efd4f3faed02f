//! Questions about issues: of a triage that found nobody for them, and of a recovery that did not
//! mend them; and what people decide about these. A decision is one change: the question, the
//! triage, what triage learns from it, the audit log and the request, all or nothing.

use std::collections::BTreeMap;

use ::triage::people::{self, Order, Wrong};
use ::triage::{AgentDeclaration, Assignment, Escalated, Example, Issue, Scene, Severity};
use engine::Instant;
use engine::event::RequestMark;
use serde_json::{Map, Value, json};
use store::{Changed, DocumentRow, DocumentWrite, RequestRow, Store};

use super::{Choice, Escalation, Proposal, Settled, Topic, id_of_issue, resource};
use crate::audit::{self, Entry};
use crate::documents::Kind;
use crate::limits;
use crate::plans::{self, Body};
use crate::recovery::ended::{How, IssueEnd};
use crate::triages::outcome::{self, Outcome};
use crate::triages::{self, Handled, Stored};

/// Who opens and withdraws questions.
const ACTOR: &str = "orchestrator";

/// What a person decides about an issue.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What.
    pub choice: Choice,
    /// Who decides.
    pub by: String,
    /// What is said to it.
    pub comment: String,
    /// For a reroute: the agent type.
    pub agent: String,
    /// For a reroute: the action; empty: the only one that the agent has for issues.
    pub action: String,
    /// For a reroute or an amendment: the action's input; `None`: what the issue gives.
    pub params: Option<Map<String, Value>>,
    /// For an amendment: the issue's description in place of its own; empty leaves it.
    pub description: String,
    /// The request that decides.
    pub request: Option<RequestMark>,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The triage that the question is about is gone.
    #[error("there is no triage `{0}` any more")]
    Gone(String),
    /// Who is to take the issue does not fit.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// Nobody has the issue who could do it with something else.
    #[error("no agent has the issue; say by `reroute` who takes it")]
    Nobody,
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It is made; `learns`: triage has something to learn from it.
    Done {
        /// Whether triage has something to learn from it.
        learns: bool,
    },
    /// Somebody else has settled the question before.
    Settled,
    /// The same request has made it before.
    Repeated,
}

/// The questions of a triage that is being kept: one for each issue that nobody takes.
///
/// # Errors
/// Never, as far as bodies are JSON.
pub fn open_for_triage(
    id: &str,
    tenant: &str,
    stored: &Stored,
    now: Instant,
) -> Result<Vec<DocumentWrite>, store::Error> {
    let places = places(stored);
    let open = |escalated: &Escalated| {
        let place = places.get(escalated.issue_id.as_str())?;
        let question = of_issue(id, &stored.issues[*place - 1], escalated);
        Some(new(question, id_of_issue(id, *place), tenant, now, 0))
    };
    stored.decided.escalated.iter().filter_map(open).collect()
}

/// The places of a triage's issues, from 1.
#[must_use]
pub fn places(stored: &Stored) -> BTreeMap<&str, usize> {
    stored.issues.iter().map(|issue| issue.id.as_str()).zip(1..).collect()
}

fn of_issue(triage: &str, issue: &Issue, escalated: &Escalated) -> Escalation {
    let proposal = escalated.proposal.as_ref();
    let is_callable = proposal.is_some_and(|proposal| proposal.lacks.is_empty());
    let mut choices = Vec::new();
    choices.extend(is_callable.then_some(Choice::Approve));
    choices.push(Choice::Reroute);
    choices.extend(proposal.map(|_| Choice::Amend));
    choices.extend([Choice::Done, Choice::Skip]);
    Escalation {
        topic: Topic::Issue,
        question: format!("who mends `{}`?", audit::text(&issue.title, TITLE_BYTES_MAX)),
        detail: detail(&[&escalated.reason, &issue.description, &issue.evidence.join("\n")]),
        triage: triage.to_owned(),
        issue: issue.id.clone(),
        severity: severity(issue.severity).to_owned(),
        choices,
        proposal: proposal.map(|proposal| Proposal {
            agent: proposal.agent_type.clone(),
            action: proposal.action.clone(),
            params: Value::Object(proposal.params.clone()),
            confidence: escalated.confidence,
        }),
        ..Escalation::default()
    }
}

/// Bytes of a title that a question repeats.
const TITLE_BYTES_MAX: usize = 300;
/// Bytes of what there is to know about it.
const DETAIL_BYTES_MAX: usize = 4_000;

fn detail(parts: &[&str]) -> String {
    let parts: Vec<&str> =
        parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    audit::text(&parts.join("\n"), DETAIL_BYTES_MAX)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
    }
}

fn new(
    question: Escalation,
    id: String,
    tenant: &str,
    created: Instant,
    expected_version: i64,
) -> Result<DocumentWrite, store::Error> {
    let row = question.row(id, tenant.to_owned(), created, expected_version + 1);
    let row = row.map_err(|error| store::Error::Invalid(error.to_string()))?;
    Ok(DocumentWrite { row, expected_version })
}

/// What the end of a plan's run changes about its questions: one is opened for each issue with a
/// step that is not mended, and those of issues that are after all are withdrawn.
///
/// # Errors
/// When the store does not answer.
pub async fn open_for_plan(
    store: &dyn Store,
    plan: &DocumentRow,
    body: &Body,
    now: Instant,
) -> Result<Vec<DocumentWrite>, store::Error> {
    let Some(ended) = &body.ended else { return Ok(Vec::new()) };
    let ids: Vec<String> =
        (1..=body.issues.len()).map(|place| id_of_issue(&plan.id, place)).collect();
    // A run that has ended before, and has gone on, has some already.
    let mut known = BTreeMap::new();
    for ids in ids.chunks(store::limits::PAGE_ROWS_MAX as usize) {
        let rows = store.documents_of(Kind::Escalation.number(), ids).await?;
        known.extend(rows.into_iter().map(|row| (row.id.clone(), row)));
    }
    let mut writes = Vec::new();
    for ((issue, end), id) in body.issues.iter().zip(&ended.issues).zip(ids) {
        let known = known.remove(&id);
        let is_asked = end.how != How::Resolved && issue.step.is_some();
        match known {
            None if is_asked => {
                let question = of_recovery(&plan.id, body, issue, end);
                writes.push(new(question, id, &plan.tenant, now, 0)?);
            }
            // It was settled, and the issue was not mended again.
            Some(row) if is_asked && row.status != super::Status::Open.number() => {
                let question = of_recovery(&plan.id, body, issue, end);
                let created = Instant(row.created_at);
                writes.push(new(question, id, &plan.tenant, created, row.version)?);
            }
            Some(row) if !is_asked && row.status == super::Status::Open.number() => {
                writes.push(withdrawn(row, "the issue was mended after all", now)?);
            }
            None | Some(_) => {}
        }
    }
    Ok(writes)
}

fn withdrawn(row: DocumentRow, why: &str, at: Instant) -> Result<DocumentWrite, store::Error> {
    let mut question = Escalation::read(&row)?;
    let (by, comment) = (ACTOR.to_owned(), why.to_owned());
    question.settled = Some(Settled { at, by, comment, ..Settled::default() });
    new(question, row.id, &row.tenant, Instant(row.created_at), row.version)
}

fn of_recovery(plan: &str, body: &Body, issue: &plans::Issue, end: &IssueEnd) -> Escalation {
    let mut choices = Vec::new();
    // Another plan is made of the triage; without one there is nothing to give anybody.
    if !body.triage.is_empty() {
        let again = [Choice::Retry, Choice::Reroute, Choice::Amend];
        choices.extend(
            again.into_iter().filter(|it| *it == Choice::Reroute || !issue.agent.is_empty()),
        );
    }
    choices.extend([Choice::Done, Choice::Skip]);
    let how = match end.how {
        How::Undone => "what was done for it is undone",
        How::Stuck => "what was done for it could not be undone",
        How::Skipped => "it was not begun",
        How::Resolved | How::Failed | How::ByHand => "it could not be mended",
    };
    let tried: Vec<&str> = end.tries.iter().map(|tried| tried.agent.as_str()).collect();
    let tried = match tried.is_empty() {
        true => String::new(),
        false => format!("tried by: {}", tried.join(", ")),
    };
    Escalation {
        topic: Topic::Recovery,
        question: format!(
            "`{}` is not mended: what is to be done?",
            audit::text(
                if issue.title.is_empty() { &issue.id } else { &issue.title },
                TITLE_BYTES_MAX
            )
        ),
        detail: detail(&[how, &end.error, &tried]),
        run: body.run,
        step: issue.step.clone().unwrap_or_default(),
        triage: body.triage.clone(),
        issue: issue.id.clone(),
        plan: plan.to_owned(),
        severity: issue.severity.to_lowercase(),
        choices,
        proposal: (!issue.agent.is_empty()).then(|| Proposal {
            agent: issue.agent.clone(),
            action: issue.action.clone(),
            ..Proposal::default()
        }),
        ..Escalation::default()
    }
}

/// Decides a question about an issue; with `only_check` nothing is written. That the choice is
/// offered has been looked at.
///
/// # Errors
/// See [`Error`]; nothing is changed then.
pub async fn decide(
    store: &dyn Store,
    agents: &[AgentDeclaration],
    id: &str,
    decision: &Decision,
    request: Option<RequestRow>,
    now: Instant,
    only_check: bool,
) -> Result<Decided, Error> {
    for _ in 0..limits::AUDIT_ATTEMPTS {
        let found = store.document(Kind::Escalation.number(), id).await?;
        let Some(row) = found else { return Ok(Decided::Settled) };
        let mut question = Escalation::read(&row)?;
        if question.settled.is_some() {
            return Ok(Decided::Settled);
        }
        let mut deciding = Deciding { store, agents, now, documents: Vec::new(), learns: false };
        let outcome = deciding.issue(&row.tenant, &question, decision).await?;
        if only_check {
            return Ok(Decided::Done { learns: false });
        }
        let entries = entries(id, &question, decision, outcome.as_ref());
        question.settled = Some(Settled {
            at: now,
            choice: Some(decision.choice),
            by: decision.by.clone(),
            comment: decision.comment.clone(),
            outcome,
            request: decision.request.clone(),
        });
        let Deciding { mut documents, learns, .. } = deciding;
        let created = Instant(row.created_at);
        documents.push(new(question, id.to_owned(), &row.tenant, created, row.version)?);
        match audit::change(store, documents, &entries, request.clone(), now).await? {
            Changed::Done => return Ok(Decided::Done { learns }),
            Changed::DuplicateRequest(_) => return Ok(Decided::Repeated),
            Changed::Conflict => {}
        }
    }
    Err(store::Error::Unavailable("others change the same triage; try again".to_owned()).into())
}

fn entries(
    id: &str,
    question: &Escalation,
    decision: &Decision,
    outcome: Option<&Proposal>,
) -> Vec<Entry> {
    let given = outcome.map(|given| json!({"agent": given.agent, "action": given.action}));
    let request = decision.request.as_ref().map(|mark| &mark.id);
    let body = json!({
        "decision": decision.choice,
        "comment": audit::said(&decision.comment),
        "triage": question.triage,
        "plan": question.plan,
        "issue": question.issue,
        "to": given,
        "request_id": request,
    });
    let entry = |resource: String, action: &'static str, body: Value| Entry {
        resource,
        actor: decision.by.clone(),
        action,
        body,
    };
    let mut entries = vec![entry(resource(id), "escalation.decide", body.clone())];
    if !question.triage.is_empty() {
        entries.push(entry(triages::resource(&question.triage), "triage.decide", body));
    }
    entries
}

/// What a decision writes beside the question.
struct Deciding<'a> {
    store: &'a dyn Store,
    agents: &'a [AgentDeclaration],
    now: Instant,
    documents: Vec<DocumentWrite>,
    learns: bool,
}

impl Deciding<'_> {
    /// Changes the triage; gives who has the issue now.
    async fn issue(
        &mut self,
        tenant: &str,
        question: &Escalation,
        decision: &Decision,
    ) -> Result<Option<Proposal>, Error> {
        if question.triage.is_empty() {
            return Ok(None);
        }
        let found = triages::get(self.store, tenant, &question.triage).await?;
        let (row, mut stored) = found.ok_or_else(|| Error::Gone(question.triage.clone()))?;
        let before = stored.decided.assignments.iter().find(|it| it.issue_id == question.issue);
        let before = before.cloned();
        stored.handled.remove(&question.issue);
        let given = match decision.choice {
            Choice::Done | Choice::Skip | Choice::Reject => {
                self.settle(&mut stored, question, decision);
                None
            }
            Choice::Retry => Some(before.ok_or(Error::Nobody)?),
            Choice::Approve | Choice::Amend | Choice::Reroute => {
                let order = order(&stored, question, decision, before.as_ref())?;
                if !decision.description.is_empty()
                    && let Some(issue) = people::issue_mut(&mut stored.issues, &question.issue)
                {
                    issue.description.clone_from(&decision.description);
                }
                let Stored { issues, constraints, decided, .. } = &mut stored;
                let scene = Scene { issues, constraints, agents: self.agents };
                Some(decided.assign(&scene, order)?)
            }
        };
        if let Some(given) = given.as_ref().filter(|_| decision.choice != Choice::Retry) {
            self.confirm(tenant, &question.triage, &stored, given, &decision.by).await?;
        }
        let expected_version = row.version;
        let row = DocumentRow {
            updated_at: self.now.0,
            version: expected_version + 1,
            body: serde_json::to_vec(&stored)
                .map_err(|error| store::Error::Invalid(error.to_string()))?,
            ..row
        };
        self.documents.push(DocumentWrite { row, expected_version });
        Ok(given.map(|given| Proposal {
            agent: given.agent_type,
            action: given.action,
            params: Value::Object(given.params),
            confidence: given.confidence,
        }))
    }

    fn settle(&self, stored: &mut Stored, question: &Escalation, decision: &Decision) {
        let handled = Handled {
            mended: decision.choice == Choice::Done,
            by: decision.by.clone(),
            comment: decision.comment.clone(),
            at: self.now,
        };
        stored.handled.insert(question.issue.clone(), handled);
        let Stored { issues, constraints, decided, .. } = stored;
        decided.settle(&Scene { issues, constraints, agents: self.agents }, &question.issue);
    }

    /// Who is right for the issue, as far as triage learns from it; what was confirmed stays.
    async fn confirm(
        &mut self,
        tenant: &str,
        triage: &str,
        stored: &Stored,
        given: &Assignment,
        by: &str,
    ) -> Result<(), store::Error> {
        let Some(issue) = stored.issues.iter().find(|issue| issue.id == given.issue_id) else {
            return Ok(());
        };
        let id = outcome::id_of(tenant, triage, &issue.id);
        let known = self.store.document(Kind::Outcome.number(), &id).await?;
        if let Some(row) = &known
            && !triages::body::<Outcome>(row)?.placed_only
        {
            return Ok(());
        }
        let outcome = Outcome {
            example: Example {
                id: issue.id.clone(),
                title: issue.title.clone(),
                description: ::triage::words::read(&issue.description).to_owned(),
                component: issue.component.clone(),
                agent_type: given.agent_type.clone(),
                category: given.category.clone(),
            },
            assigned: (!given.instead_of.is_empty()).then(|| given.instead_of.clone()),
            category: given.category.clone(),
            mended: false,
            placed_only: true,
            duration_ms: None,
            at_ms: self.now.0.div_euclid(1_000),
            by: by.to_owned(),
        };
        let version = known.as_ref().map_or(0, |row| row.version);
        let row = DocumentRow {
            kind: Kind::Outcome.number(),
            id,
            tenant: tenant.to_owned(),
            parent: Some(triage.to_owned()),
            status: 1,
            created_at: known.map_or(self.now.0, |row| row.created_at),
            updated_at: self.now.0,
            due_at: None,
            version: version + 1,
            body: serde_json::to_vec(&outcome)
                .map_err(|error| store::Error::Invalid(error.to_string()))?,
        };
        self.documents.push(DocumentWrite { row, expected_version: version });
        self.learns = true;
        Ok(())
    }
}

/// To whom the issue goes.
fn order(
    stored: &Stored,
    question: &Escalation,
    decision: &Decision,
    before: Option<&Assignment>,
) -> Result<Order, Error> {
    let escalated = stored.decided.escalated.iter().find(|it| it.issue_id == question.issue);
    let proposal = escalated.and_then(|escalated| escalated.proposal.as_ref());
    let said = match decision.comment.trim() {
        "" => format!("{} said so", decision.by),
        comment => format!("{} said so: {comment}", decision.by),
    };
    let reason = audit::text(&said, DETAIL_BYTES_MAX);
    let issue_id = question.issue.clone();
    let params = decision.params.clone();
    if decision.choice == Choice::Reroute {
        let (agent_type, action) = (decision.agent.clone(), decision.action.clone());
        return Ok(Order { issue_id, agent_type, action, params, reason });
    }
    let (agent_type, action) = match (before, proposal) {
        (Some(before), _) => (before.agent_type.clone(), before.action.clone()),
        (None, Some(proposal)) => (proposal.agent_type.clone(), proposal.action.clone()),
        (None, None) => return Err(Error::Nobody),
    };
    Ok(Order { issue_id, agent_type, action, params, reason })
}
