//! What people decide: run by run as commands, about issues as changes of their triage.

use contracts::v1::{self, EscalationDecision, Reason};
use engine::event::{Origin, UndoDecision};
use engine::{Command, RunId};
use serde_json::{Value, json};

use super::{Found, short};
use crate::escalations::{Choice, Settled, Topic, issues};
use crate::service::auth::Principal;
use crate::service::request::Mark;
use crate::service::status::Refusal;
use crate::service::{Context, convert};

fn choice(decision: EscalationDecision) -> Result<Choice, Refusal> {
    Ok(match decision {
        EscalationDecision::Approve => Choice::Approve,
        EscalationDecision::Reject => Choice::Reject,
        EscalationDecision::Amend => Choice::Amend,
        EscalationDecision::Reroute => Choice::Reroute,
        EscalationDecision::Retry => Choice::Retry,
        EscalationDecision::Done => Choice::Done,
        EscalationDecision::Skip => Choice::Skip,
        EscalationDecision::Unspecified => {
            let known = "must be approve, reject, amend, reroute, retry, done or skip";
            return Err(Refusal::field("decision", known));
        }
    })
}

/// `DecideEscalation`.
pub(super) async fn decide(
    context: &Context,
    who: &Principal,
    request: v1::DecideEscalationRequest,
) -> Result<v1::Escalation, Refusal> {
    let choice = choice(request.decision())?;
    short(&request.comment, "comment")?;
    if choice == Choice::Skip && request.comment.trim().is_empty() {
        return Err(Refusal::field("comment", "must say why it is left as it is"));
    }
    let id = request.escalation_id.clone();
    let payload = convert::json(request.payload.clone(), "payload")?;
    let asked = json!([
        choice,
        request.comment,
        request.agent_type,
        request.action,
        payload,
        request.description
    ]);
    let asked = asked.to_string();
    let parts = [id.as_bytes(), asked.as_bytes()];
    let mark = Mark::new(&request.request_id, "DecideEscalation", &parts)?;
    let found = Found::get(context, who, &id).await?;
    if was_decided_by(&found, mark.as_ref())? {
        return Ok(found.shown(context));
    }
    found.expect_open()?;
    found.expect_choice(choice)?;
    expect_fields(&request, choice, found.question.topic)?;
    if matches!(found.question.topic, Topic::Issue | Topic::Recovery) {
        decide_issue(context, who, &found, choice, request, mark.as_ref()).await?;
        return Ok(Found::get(context, who, &id).await?.shown(context));
    }
    if request.validate_only {
        return Ok(found.shown(context));
    }
    match (found.question.topic, found.question.run) {
        (Topic::Step, Some(run)) => {
            let amendment = match choice {
                Choice::Amend => convert::amendment(request.payload, true)?,
                _ => None,
            };
            if choice == Choice::Amend && amendment.is_none() {
                return Err(Refusal::field("payload", "must say what is amended"));
            }
            let command = |origin| Command::Decide {
                path: found.question.step.clone(),
                approve: choice != Choice::Reject,
                comment: request.comment,
                amendment: amendment.as_deref().map(Into::into),
                origin,
            };
            ask(context, who, run, mark.as_ref(), command, &id).await?;
        }
        (Topic::Undo, Some(run)) => {
            let decision = match choice {
                Choice::Done => UndoDecision::Done,
                Choice::Skip => UndoDecision::Skip,
                _ => UndoDecision::Retry,
            };
            let (path, comment) = (found.question.step.clone(), request.comment);
            let command = |origin| Command::DecideUndo { path, decision, comment, origin };
            ask(context, who, run, mark.as_ref(), command, &id).await?;
        }
        _ => {
            let message = "only questions of runs can be decided";
            return Err(Refusal::new(Reason::DecisionNotOffered, message));
        }
    }
    Ok(Found::get(context, who, &id).await?.shown(context))
}

/// Decides about an issue of a triage, or of a recovery.
async fn decide_issue(
    context: &Context,
    who: &Principal,
    found: &Found,
    choice: Choice,
    request: v1::DecideEscalationRequest,
    mark: Option<&Mark>,
) -> Result<(), Refusal> {
    let params = match convert::value(request.payload, "payload")? {
        None => None,
        Some(Value::Object(params)) => Some(params),
        Some(_) => return Err(Refusal::field("payload", "must be a JSON object: the params")),
    };
    if choice == Choice::Amend && params.is_none() && request.description.is_empty() {
        let wrong = "must say what is amended: the params, or `description` the issue's";
        return Err(Refusal::field("payload", wrong));
    }
    if request.description.len() > ::triage::limits::DESCRIPTION_BYTES_MAX {
        let max = ::triage::limits::DESCRIPTION_BYTES_MAX;
        return Err(Refusal::field("description", format!("{max} bytes are allowed")));
    }
    let decision = issues::Decision {
        choice,
        by: who.subject.clone(),
        comment: request.comment,
        agent: request.agent_type,
        action: request.action,
        params,
        description: request.description,
        request: mark.map(Mark::journal),
    };
    let store = &**context.runs.store();
    let now = context.runs.clock().now();
    let row = mark.map(|mark| mark.row(who, None, now));
    let agents = context.learning.declared(&who.tenant).await?;
    let (id, check) = (&found.row.id, request.validate_only);
    match issues::decide(store, &agents, id, &decision, row, now, check).await? {
        issues::Decided::Done { learns: true } => context.learning.confirmed(&who.tenant).await,
        issues::Decided::Done { learns: false } => {}
        // The very same request may have been the faster one.
        issues::Decided::Settled | issues::Decided::Repeated => {
            let found = Found::get(context, who, id).await?;
            if !was_decided_by(&found, mark)? {
                found.expect_open()?;
            }
        }
    }
    Ok(())
}

impl From<issues::Error> for Refusal {
    fn from(error: issues::Error) -> Self {
        use ::triage::people::Wrong;
        let message = error.to_string();
        let field = match error {
            issues::Error::Store(error) => return error.into(),
            issues::Error::Gone(id) => {
                return Self::missing(Reason::TriageNotFound, "triage", &id, message);
            }
            issues::Error::Nobody => return Self::new(Reason::DecisionNotOffered, message),
            issues::Error::Wrong(Wrong::Issue(_)) => "escalation_id",
            issues::Error::Wrong(Wrong::Agent { .. }) => "agent_type",
            issues::Error::Wrong(Wrong::Action { .. }) => "action",
            issues::Error::Wrong(Wrong::Params { .. }) => "payload",
        };
        Self::field(field, message)
    }
}

/// Whether the very same request has decided it before.
fn was_decided_by(found: &Found, mark: Option<&Mark>) -> Result<bool, Refusal> {
    let (Some(mark), Some(Settled { request: Some(request), .. })) =
        (mark, &found.question.settled)
    else {
        return Ok(false);
    };
    mark.is_of(request)
}

/// Refuses what is given without being of any use: somebody meant something else.
fn expect_fields(
    request: &v1::DecideEscalationRequest,
    choice: Choice,
    topic: Topic,
) -> Result<(), Refusal> {
    let reroutes = choice == Choice::Reroute;
    if reroutes && request.agent_type.is_empty() {
        return Err(Refusal::field("agent_type", "must say who takes the issue"));
    }
    let amends_issue = choice == Choice::Amend && topic != Topic::Step;
    let useless = [
        ("agent_type", !request.agent_type.is_empty() && !reroutes),
        ("action", !request.action.is_empty() && !reroutes),
        ("payload", request.payload.is_some() && !reroutes && choice != Choice::Amend),
        ("description", !request.description.is_empty() && !amends_issue),
    ];
    match useless.into_iter().find(|(_, is_given)| *is_given) {
        Some((field, _)) => Err(Refusal::field(field, format!("is of no use to `{choice}`"))),
        None => Ok(()),
    }
}

/// Asks the run; where it does not wait any more, what came of the question says why.
async fn ask(
    context: &Context,
    who: &Principal,
    run: RunId,
    mark: Option<&Mark>,
    command: impl FnOnce(Origin) -> Command,
    id: &str,
) -> Result<(), Refusal> {
    let origin = who.origin(mark.map(Mark::journal));
    let Err(refused) = context.runs.ask(run, command(origin)).await else { return Ok(()) };
    if matches!(refused, crate::runs::Error::Rejected(_)) {
        Found::get(context, who, id).await?.expect_open()?;
    }
    Err(refused.into())
}
