//! `escalations`.

use clap::{Args, Subcommand, ValueEnum};
use contracts::v1::{
    ClaimEscalationRequest, CommentEscalationRequest, DecideEscalationRequest, Escalation,
    EscalationDecision, EscalationRoute, EscalationStatus, EscalationTopic, GetEscalationRequest,
    ListEscalationsRequest, ListEscalationsResponse,
};

use super::workflow::or_dash;
use super::{Session, count, pages};
use crate::connection::escalations as client_of;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::one_line;
use crate::request_id::request_id;
use crate::table::{Table, details};
use crate::{json, moment};

const QUESTION_CHARS_MAX: usize = 80;

/// What can be done with questions to people.
#[derive(Subcommand, Clone, Debug)]
pub enum EscalationCommand {
    /// List the open ones, the newest first
    #[command(after_help = "Examples:\n  orchestrator escalations list\n  \
        orchestrator escalations list --overdue\n  \
        orchestrator escalations list --all --run RUN")]
    List(List),
    /// Show one: the question, what may be decided, what was said
    #[command(after_help = "Example:\n  orchestrator escalations show ESCALATION")]
    Show(Which),
    /// Take one up, so that others know; they may still decide
    #[command(after_help = "Examples:\n  orchestrator escalations claim ESCALATION --as ann\n  \
        orchestrator escalations claim ESCALATION --release")]
    Claim(Claim),
    /// Say something to one
    #[command(after_help = "Example:\n  \
        orchestrator escalations comment ESCALATION 'the host comes back at ten'")]
    Comment(Comment),
    /// Decide one; what waited for it goes on
    #[command(after_help = "Examples:\n  orchestrator escalations decide ESCALATION approve\n  \
        orchestrator escalations decide ESCALATION reject --comment 'not today'\n  \
        orchestrator escalations decide ESCALATION amend --payload '{\"share\": 10}'\n  \
        orchestrator escalations decide ESCALATION reroute --agent database-agent\n  \
        orchestrator escalations decide ESCALATION skip --comment 'the host is gone'")]
    Decide(Decide),
}

/// Lists them.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Also those that are settled
    #[arg(long)]
    all: bool,
    /// Only those that are open for too long
    #[arg(long, conflicts_with = "all")]
    overdue: bool,
    /// Only those about this
    #[arg(long, value_enum)]
    topic: Option<Topic>,
    /// Only those of this run
    #[arg(long, value_name = "RUN", conflicts_with_all = ["triage", "plan"])]
    run: Option<String>,
    /// Only those of this triage
    #[arg(long, value_name = "TRIAGE", conflicts_with = "plan")]
    triage: Option<String>,
    /// Only those of this recovery plan
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// Only those that this person has taken up
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = count)]
    limit: usize,
}

/// What one may be about.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Topic {
    /// A step that asks
    Step,
    /// An undo that failed for good
    Undo,
    /// An issue that nobody takes
    Issue,
    /// An issue that a recovery did not mend
    Recovery,
}

/// Names one.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The escalation's id
    escalation: String,
}

/// Takes one up.
#[derive(Args, Clone, Debug)]
pub struct Claim {
    /// The escalation's id
    escalation: String,
    /// Who takes it up; without it, whoever calls
    #[arg(long = "as", value_name = "NAME", default_value = "", hide_default_value = true)]
    assignee: String,
    /// Nobody has it any more
    #[arg(long, conflicts_with_all = ["assignee", "take_over"])]
    release: bool,
    /// Also where somebody else has it
    #[arg(long)]
    take_over: bool,
}

/// Says something.
#[derive(Args, Clone, Debug)]
pub struct Comment {
    /// The escalation's id
    escalation: String,
    /// What
    text: String,
}

/// Decides one.
#[derive(Args, Clone, Debug)]
pub struct Decide {
    /// The escalation's id
    escalation: String,
    /// What
    decision: Verdict,
    /// Why; needed for `skip`
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
    /// For `reroute`: the agent type that takes the issue
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    agent: String,
    /// For `reroute`: the action; without it, the one that the agent declares for such issues
    #[arg(long, default_value = "", hide_default_value = true)]
    action: String,
    /// For `amend` of a step: what its output has as `amendment`; of an issue, and for `reroute`:
    /// the params of the action
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// For `amend` of an issue: its description
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Only say whether this could be decided
    #[arg(long)]
    dry_run: bool,
    /// Makes the request repeatable
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// What is decided.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Verdict {
    /// Let the step go on; give the issue to whom is proposed
    Approve,
    /// Let the step fail
    Reject,
    /// Approve with something changed
    Amend,
    /// Give the issue to another agent
    Reroute,
    /// Try it again
    Retry,
    /// It was done by hand
    Done,
    /// Leave it as it is
    Skip,
}

impl From<Verdict> for EscalationDecision {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Approve => Self::Approve,
            Verdict::Reject => Self::Reject,
            Verdict::Amend => Self::Amend,
            Verdict::Reroute => Self::Reroute,
            Verdict::Retry => Self::Retry,
            Verdict::Done => Self::Done,
            Verdict::Skip => Self::Skip,
        }
    }
}

pub(super) async fn run(command: EscalationCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        EscalationCommand::List(list) => self::list(list, session).await,
        EscalationCommand::Show(which) => show(which, session).await,
        EscalationCommand::Claim(claim) => self::claim(claim, session).await,
        EscalationCommand::Comment(comment) => self::comment(comment, session).await,
        EscalationCommand::Decide(decide) => self::decide(decide, session).await,
    }
}

fn filter(list: &List) -> String {
    let topic = list.topic.map(|topic| match topic {
        Topic::Step => "step",
        Topic::Undo => "undo",
        Topic::Issue => "issue",
        Topic::Recovery => "recovery",
    });
    let terms = [
        ("status", (!list.all).then_some("open")),
        ("overdue", list.overdue.then_some("true")),
        ("topic", topic),
        ("run_id", list.run.as_deref()),
        ("triage_id", list.triage.as_deref()),
        ("plan_id", list.plan.as_deref()),
        ("assignee", list.assignee.as_deref()),
    ];
    let terms = terms.into_iter().filter_map(|(field, value)| Some(format!("{field}={}", value?)));
    terms.collect::<Vec<_>>().join(" AND ")
}

async fn list(list: List, session: &mut Session) -> Result<Exit, Error> {
    let client = session.client.clone();
    let filter = filter(&list);
    let (escalations, next_page_token) = pages(list.limit, async |page_size, page_token| {
        let filter = filter.clone();
        let request = ListEscalationsRequest { page_size, page_token, filter };
        let page = client
            .call(async |channel| client_of(channel).list_escalations(request.clone()).await)
            .await?;
        Ok((page.escalations, page.next_page_token))
    })
    .await?;
    if session.output.is_json() {
        let response = ListEscalationsResponse { escalations, next_page_token };
        session.output.data(&json::message("ListEscalationsResponse", &response))?;
        return Ok(Exit::Success);
    }
    if escalations.is_empty() {
        let which = if list.all { "there are no escalations" } else { "nobody is asked" };
        session.output.note(which);
        return Ok(Exit::Success);
    }
    let now = moment::now();
    let headings = ["ESCALATION", "OPENED", "TOPIC", "STATUS", "ASSIGNEE", "ABOUT", "QUESTION"];
    let mut table = Table::new(&headings, &session.output);
    for escalation in &escalations {
        table.row([
            escalation.escalation_id.as_str(),
            &moment::relative(escalation.create_time.as_ref(), now),
            topic_word(escalation.topic()),
            status_word(escalation),
            or_dash(&escalation.assignee),
            or_dash(about(escalation)),
            &one_line(&escalation.question, QUESTION_CHARS_MAX),
        ]);
    }
    session.output.data(&table.text())?;
    super::more(&next_page_token, session);
    Ok(Exit::Success)
}

async fn show(which: Which, session: &mut Session) -> Result<Exit, Error> {
    let request = GetEscalationRequest { escalation_id: which.escalation };
    let client = session.client.clone();
    let response = client
        .call(async |channel| client_of(channel).get_escalation(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("GetEscalationResponse", &response))?;
        return Ok(Exit::Success);
    }
    show_one(&response.escalation.unwrap_or_default(), session)?;
    Ok(Exit::Success)
}

async fn claim(claim: Claim, session: &mut Session) -> Result<Exit, Error> {
    let request = ClaimEscalationRequest {
        escalation_id: claim.escalation,
        assignee: claim.assignee,
        release: claim.release,
        take_over: claim.take_over,
        request_id: request_id(None),
    };
    let client = session.client.clone();
    let response = client
        .call(async |channel| client_of(channel).claim_escalation(request.clone()).await)
        .await?;
    let document = json::message("ClaimEscalationResponse", &response);
    let escalation = response.escalation.unwrap_or_default();
    let done = match escalation.assignee.as_str() {
        "" => "nobody has taken it up any more".to_owned(),
        name => format!("{name} has taken it up"),
    };
    changed(&escalation, &document, &done, session)
}

async fn comment(comment: Comment, session: &mut Session) -> Result<Exit, Error> {
    let request = CommentEscalationRequest {
        escalation_id: comment.escalation,
        text: comment.text,
        request_id: request_id(None),
    };
    let client = session.client.clone();
    let response = client
        .call(async |channel| client_of(channel).comment_escalation(request.clone()).await)
        .await?;
    let document = json::message("CommentEscalationResponse", &response);
    let escalation = response.escalation.unwrap_or_default();
    let done = format!("it has {} comments", escalation.comments.len());
    changed(&escalation, &document, &done, session)
}

async fn decide(decide: Decide, session: &mut Session) -> Result<Exit, Error> {
    let decision = EscalationDecision::from(decide.decision);
    let request = DecideEscalationRequest {
        escalation_id: decide.escalation,
        decision: decision.into(),
        comment: decide.comment,
        agent_type: decide.agent,
        action: decide.action,
        payload: super::run::json_payload(decide.payload, "--payload")?,
        description: decide.description,
        request_id: request_id(decide.request_id.as_deref()),
        validate_only: decide.dry_run,
    };
    let client = session.client.clone();
    let response = client
        .call(async |channel| client_of(channel).decide_escalation(request.clone()).await)
        .await?;
    let document = json::message("DecideEscalationResponse", &response);
    let escalation = response.escalation.unwrap_or_default();
    let word = decision_word(decision);
    let done = match (decide.dry_run, escalation.route.as_ref()) {
        (true, _) => format!("`{word}` could be decided; nothing is"),
        (false, Some(route)) => format!("decided: {word}, {}", route_word(route)),
        (false, None) => format!("decided: {word}"),
    };
    changed(&escalation, &document, &done, session)
}

fn changed(
    escalation: &Escalation,
    document: &str,
    done: &str,
    session: &mut Session,
) -> Result<Exit, Error> {
    if session.output.is_json() {
        session.output.data(document)?;
    } else {
        session.output.data(&format!("{}: {done}", escalation.escalation_id))?;
    }
    Ok(Exit::Success)
}

fn topic_word(topic: EscalationTopic) -> &'static str {
    match topic {
        EscalationTopic::Unspecified => "",
        EscalationTopic::Step => "step",
        EscalationTopic::Undo => "undo",
        EscalationTopic::Issue => "issue",
        EscalationTopic::Recovery => "recovery",
    }
}

fn status_word(escalation: &Escalation) -> &'static str {
    match escalation.status() {
        EscalationStatus::Unspecified => "",
        EscalationStatus::Open if escalation.overdue => "overdue",
        EscalationStatus::Open => "open",
        EscalationStatus::Decided => "decided",
        EscalationStatus::Withdrawn => "withdrawn",
    }
}

fn decision_word(decision: EscalationDecision) -> String {
    decision.as_str_name().trim_start_matches("ESCALATION_DECISION_").to_ascii_lowercase()
}

/// The issue, else the step.
fn about(escalation: &Escalation) -> &str {
    if escalation.issue_id.is_empty() { &escalation.step } else { &escalation.issue_id }
}

fn route_word(route: &EscalationRoute) -> String {
    match route.action.as_str() {
        "" => route.agent_type.clone(),
        action => format!("{} {action}", route.agent_type),
    }
}

fn show_one(escalation: &Escalation, session: &mut Session) -> Result<(), Error> {
    let now = moment::now();
    let is_open = escalation.status() == EscalationStatus::Open;
    let choices: Vec<String> = escalation.choices().map(decision_word).collect();
    let proposal = escalation
        .proposal
        .as_ref()
        .map(|it| format!("{} ({:.2} sure)", route_word(it), it.confidence));
    let decision = match escalation.decision() {
        EscalationDecision::Unspecified => String::new(),
        other => decision_word(other),
    };
    let time = |at: &Option<prost_types::Timestamp>| {
        at.as_ref().map(|at| moment::local(Some(at), now)).unwrap_or_default()
    };
    let told = match escalation.reminders {
        0 => String::new(),
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    let only = |is: bool, text: String| if is { text } else { String::new() };
    let mut text = details(&[
        ("Escalation", escalation.escalation_id.clone()),
        ("Question", escalation.question.clone()),
        ("About", topic_word(escalation.topic()).to_owned()),
        ("Status", status_word(escalation).to_owned()),
        ("Run", escalation.run_id.clone()),
        ("Step", escalation.step.clone()),
        ("Triage", escalation.triage_id.clone()),
        ("Issue", escalation.issue_id.clone()),
        ("Severity", escalation.severity.clone()),
        ("Plan", escalation.plan_id.clone()),
        ("Proposed", proposal.unwrap_or_default()),
        ("Opened", time(&escalation.create_time)),
        ("Due", only(is_open, time(&escalation.due_time))),
        ("Step gives up", only(is_open, time(&escalation.step_timeout_time))),
        ("Told", told),
        ("Assignee", escalation.assignee.clone()),
        ("Choices", only(is_open, choices.join(", "))),
        ("Decision", decision),
        ("Decided by", escalation.decided_by.clone()),
        ("Goes to", escalation.route.as_ref().map(route_word).unwrap_or_default()),
        ("Settled", time(&escalation.settle_time)),
        ("Said to it", escalation.settle_comment.clone()),
    ]);
    if !escalation.detail.is_empty() {
        text.push_str(&format!("\n\n{}", escalation.detail.trim_end()));
    }
    for comment in &escalation.comments {
        let when = moment::local(comment.time.as_ref(), now);
        text.push_str(&format!("\n\n{} ({when}):\n{}", comment.author, comment.text.trim_end()));
    }
    session.output.data(&text)?;
    if is_open {
        let id = &escalation.escalation_id;
        let choices = choices.join("|");
        session.output.note(&format!("decide: orchestrator escalations decide {id} {choices}"));
    }
    Ok(())
}
