//! How a refusal reaches the client: a reason of `error.proto`, its gRPC code, a sentence, and the
//! details of `google.rpc` that fit. The one table from reasons to codes stands here; texts of the
//! database never pass through.

use std::collections::HashMap;
use std::time::Duration;

use contracts::v1::Reason;
use engine::Rejection;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{definitions, ids, runs};

/// The domain of all reasons.
pub const DOMAIN: &str = "orchestrator.v1";
/// When to come back when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// All details together. They travel in a header, base64, and many clients take 16 KiB of headers.
const DETAIL_BYTES_MAX: usize = 9 * 1024;
/// The longest message; it travels in a header too, percent-encoded.
const MESSAGE_BYTES_MAX: usize = 1024;
/// The longest text of one violation.
const VIOLATION_BYTES_MAX: usize = 512;

/// The gRPC code of a reason.
#[must_use]
pub fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidField
        | Reason::InvalidDefinition
        | Reason::InvalidParams
        | Reason::InvalidPageToken
        | Reason::InvalidFilter
        | Reason::IssueCycle => Code::InvalidArgument,
        Reason::WorkflowNotFound
        | Reason::TriageNotFound
        | Reason::EscalationNotFound
        | Reason::RunNotFound
        | Reason::StepNotFound
        | Reason::AgentNotFound
        | Reason::RollbackNotFound
        | Reason::CheckpointNotFound
        | Reason::PlanNotFound
        | Reason::DeadLetterNotFound => Code::NotFound,
        Reason::WorkflowExists | Reason::RequestIdReused => Code::AlreadyExists,
        Reason::RunEnded
        | Reason::RunNotEnded
        | Reason::RunState
        | Reason::PlanState
        | Reason::PlanNotUndoable
        | Reason::EscalationSettled
        | Reason::EscalationClaimed
        | Reason::DecisionNotOffered
        | Reason::StepNotWaiting
        | Reason::RollbackOpen
        | Reason::RollbackState
        | Reason::NotRegistered => Code::FailedPrecondition,
        Reason::LimitExceeded | Reason::Overloaded => Code::ResourceExhausted,
        Reason::Unavailable => Code::Unavailable,
        Reason::SequenceGone => Code::OutOfRange,
        Reason::Unspecified | Reason::Internal => Code::Internal,
        Reason::EtagMismatch => Code::Aborted,
    }
}

/// A refusal on its way to the client.
#[derive(Clone, Debug)]
pub struct Refusal(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    reason: Reason,
    message: String,
    metadata: Vec<(String, String)>,
    fields: Vec<(String, String)>,
    preconditions: Vec<(String, String, String)>,
    quotas: Vec<(String, String)>,
    resource: Option<(&'static str, String)>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal for this reason, said so that a person knows what to do.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            reason,
            message: message.into(),
            metadata: Vec::new(),
            fields: Vec::new(),
            preconditions: Vec::new(),
            quotas: Vec::new(),
            resource: None,
            retry_after: None,
        }))
    }

    /// A field of the request is wrong.
    #[must_use]
    pub fn field(field: &str, wrong: impl Into<String>) -> Self {
        let wrong = wrong.into();
        Self::new(Reason::InvalidField, format!("{field}: {wrong}")).violation(field, wrong)
    }

    /// Something is not there.
    #[must_use]
    pub fn missing(reason: Reason, kind: &'static str, name: &str, message: String) -> Self {
        let mut refusal = Self::new(reason, message);
        refusal.0.resource = Some((kind, name.to_owned()));
        refusal
    }

    /// A bound is exceeded.
    #[must_use]
    pub fn limit(subject: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(Reason::LimitExceeded, message.clone()).quota(subject, message)
    }

    /// The server has too much to do just now.
    #[must_use]
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(Reason::Overloaded, message).retry_after(RETRY_AFTER)
    }

    /// The server cannot do it just now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::Unavailable, message).retry_after(RETRY_AFTER)
    }

    /// A defect. What is wrong goes to the log, its id to the client.
    #[must_use]
    pub fn internal(what: &dyn std::fmt::Display) -> Self {
        let incident = ids::incident();
        tracing::error!(%incident, %what, "a request failed through a defect");
        let message = format!("a defect of the server; look for {incident} in its log");
        Self::new(Reason::Internal, message).metadata("incident", incident)
    }

    /// With another fact for programs.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.metadata.push((key.to_owned(), value.into()));
        self
    }

    /// With a field that is wrong.
    #[must_use]
    pub fn violation(mut self, field: &str, wrong: impl Into<String>) -> Self {
        self.0.fields.push((field.to_owned(), wrong.into()));
        self
    }

    /// With a state that is not as it must be.
    #[must_use]
    pub fn precondition(mut self, kind: &str, subject: &str, wrong: impl Into<String>) -> Self {
        self.0.preconditions.push((kind.to_owned(), subject.to_owned(), wrong.into()));
        self
    }

    /// With a bound that is exceeded.
    #[must_use]
    pub fn quota(mut self, subject: &str, wrong: impl Into<String>) -> Self {
        self.0.quotas.push((subject.to_owned(), wrong.into()));
        self
    }

    /// With the time after which it is worth another try.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Its reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }
}

impl Parts {
    fn details(&self) -> ErrorDetails {
        let mut room = DETAIL_BYTES_MAX;
        let mut metadata = HashMap::new();
        for (key, value) in &self.metadata {
            if let Some(left) = room.checked_sub(key.len() + value.len()) {
                room = left;
                metadata.insert(key.clone(), value.clone());
            }
        }
        let mut details = ErrorDetails::with_error_info(name(self.reason), DOMAIN, metadata);
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        if let Some((kind, name)) = &self.resource {
            details.set_resource_info(*kind, cut(name, VIOLATION_BYTES_MAX), "", "");
        }
        for (index, (field, wrong)) in self.fields.iter().enumerate() {
            let (field, wrong) = (cut(field, VIOLATION_BYTES_MAX), cut(wrong, VIOLATION_BYTES_MAX));
            let Some(left) = room.checked_sub(field.len() + wrong.len()) else {
                let rest = self.fields.len() - index;
                details.add_bad_request_violation("", format!("{rest} more are left out"));
                break;
            };
            room = left;
            details.add_bad_request_violation(field, wrong);
        }
        for (kind, subject, wrong) in &self.preconditions {
            let wrong = cut(wrong, VIOLATION_BYTES_MAX);
            let size = kind.len() + subject.len() + wrong.len();
            let Some(left) = room.checked_sub(size) else { break };
            room = left;
            details.add_precondition_failure_violation(kind, subject, wrong);
        }
        for (subject, wrong) in &self.quotas {
            let wrong = cut(wrong, VIOLATION_BYTES_MAX);
            let Some(left) = room.checked_sub(subject.len() + wrong.len()) else { break };
            room = left;
            details.add_quota_failure_violation(subject, wrong);
        }
        details
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let parts = refusal.0;
        let message = cut(&parts.message, MESSAGE_BYTES_MAX);
        Self::with_error_details(code(parts.reason), message, parts.details())
    }
}

/// The reason's name as it stands in `ErrorInfo`.
#[must_use]
pub fn name(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}

/// Text cut to a bound, at a character's end, with a mark where something is missing.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end])
}

impl From<runs::Error> for Refusal {
    fn from(error: runs::Error) -> Self {
        let message = error.to_string();
        match error {
            runs::Error::NotFound(run) => {
                Self::missing(Reason::RunNotFound, "run", &run.to_string(), message)
            }
            runs::Error::Rejected(rejection) => rejection.into(),
            runs::Error::RequestIdReused(_) => Self::new(Reason::RequestIdReused, message)
                .violation("request_id", "take a new id for another request"),
            runs::Error::Overloaded(_) => Self::overloaded(message),
            runs::Error::Unavailable(_) | runs::Error::Elsewhere(_) => Self::unavailable(message),
            runs::Error::Stuck(run, _) => Self::new(Reason::RunState, message).precondition(
                "STUCK",
                &run.to_string(),
                "a defect stopped this run; see `orchestrator doctor`",
            ),
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let message = rejection.to_string();
        let state = |reason, kind: &str| {
            Self::new(reason, message.clone()).precondition(kind, "run", message.clone())
        };
        match &rejection {
            Rejection::Ended => state(Reason::RunEnded, "ENDED"),
            Rejection::NotEnded => state(Reason::RunNotEnded, "NOT_ENDED"),
            Rejection::State(_) | Rejection::TaskNotOut | Rejection::Repeated => {
                state(Reason::RunState, "STATE")
            }
            Rejection::RollbackOpen(_) => state(Reason::RollbackOpen, "ROLLBACK_OPEN"),
            Rejection::RollbackNotApproved(_) => state(Reason::RollbackState, "NOT_APPROVED"),
            Rejection::UndoNotOpen(_) => state(Reason::RollbackState, "UNDO_NOT_OPEN"),
            Rejection::RollbackNotFound(number) => {
                let number = number.to_string();
                Self::missing(Reason::RollbackNotFound, "rollback", &number, message)
            }
            Rejection::CheckpointNotFound(name) => {
                Self::missing(Reason::CheckpointNotFound, "checkpoint", name, message)
            }
            Rejection::StepNotFound(step) => {
                Self::missing(Reason::StepNotFound, "step", step, message)
            }
            Rejection::StepNotWaiting(step) => Self::new(Reason::StepNotWaiting, message.clone())
                .precondition("NOT_WAITING", step, message),
            Rejection::RequestIdReused(_) => Self::new(Reason::RequestIdReused, message)
                .violation("request_id", "take a new id for another request"),
            Rejection::TooManySignals(_) => Self::limit("signals", message),
            Rejection::NotJson(_) => Self::field("payload", message),
        }
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        tracing::warn!(%error, "the store did not do what a request needs");
        match error {
            store::Error::Unknown(_) => Self::unavailable(
                "it is not known whether this was stored; repeat it with the same request id",
            ),
            store::Error::Unavailable(_) => Self::unavailable("the store cannot be reached"),
            store::Error::Full(_) => Self::unavailable("the store has no room to write"),
            store::Error::Invalid(message) => Self::limit("store", message),
            other => Self::internal(&other),
        }
    }
}

impl From<definitions::Error> for Refusal {
    fn from(error: definitions::Error) -> Self {
        match error {
            definitions::Error::Store(error) => error.into(),
            definitions::Error::Refused(..) => {
                Self::new(Reason::InvalidDefinition, error.to_string())
            }
            other @ definitions::Error::Missing(_) => Self::internal(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons() -> Vec<Reason> {
        (1..=i32::from(u8::MAX)).filter_map(|number| Reason::try_from(number).ok()).collect()
    }

    #[test]
    fn every_reason_has_the_code_that_the_contract_names() {
        let contract = include_str!("../../../proto/orchestrator/v1/error.proto");
        let named = contract.lines().filter(|line| line.starts_with("  REASON_")).count();
        assert_eq!(reasons().len() + 1, named, "all but the unspecified one");
        for reason in reasons() {
            let line = format!("  {} = {};", reason.as_str_name(), reason as i32);
            let before = contract.split_once(&line).unwrap().0.trim_end();
            let said = before.rsplit([' ', '\n']).next().unwrap().trim_end_matches('.');
            let expected: String = format!("{:?}", code(reason));
            assert_eq!(said.replace('_', ""), expected.to_uppercase(), "{line}");
        }
    }

    #[test]
    fn every_reason_has_a_section_in_the_docs_and_every_section_a_reason() {
        let docs = include_str!("../../../docs/errors.md");
        let sections: Vec<&str> = docs.lines().filter_map(|l| l.strip_prefix("## ")).collect();
        let names: Vec<&str> = reasons().into_iter().map(name).collect();
        assert_eq!(sections, names);
        for section in docs.split("\n## ").skip(1) {
            assert!(section.contains("What to do:"), "{section}");
        }
    }

    #[test]
    fn a_refusal_carries_its_details() {
        let refusal = Refusal::field("priority", "must be 0 to 9, found 12")
            .retry_after(Duration::from_secs(1));
        let status = Status::from(refusal);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "priority: must be 0 to 9, found 12");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELD", DOMAIN));
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "priority");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
    }

    #[test]
    fn whatever_is_said_the_details_fit_into_a_header() {
        let mut refusal = Refusal::new(Reason::InvalidDefinition, "é".repeat(5_000));
        for number in 0..2_000 {
            refusal = refusal.violation(&format!("definition:{number}:1"), "x".repeat(2_000));
        }
        let status = Status::from(refusal.metadata("complaints", "y".repeat(4_000)));
        assert!(status.details().len() < 11 * 1024, "{}", status.details().len());
        assert!(status.message().len() <= MESSAGE_BYTES_MAX);
        let details = status.get_error_details();
        let last = details.bad_request().unwrap().field_violations.last().unwrap().clone();
        assert!(last.description.ends_with("more are left out"), "{last:?}");
    }

    #[test]
    fn text_of_the_database_does_not_reach_the_client() {
        for error in [
            store::Error::Database("near \"SELEC\": syntax error".to_owned()),
            store::Error::Unavailable("host=db1 SELEC".to_owned()),
        ] {
            let status = Status::from(Refusal::from(error));
            assert!(!format!("{status:?}").contains("SELEC"), "{status:?}");
        }
    }
}
