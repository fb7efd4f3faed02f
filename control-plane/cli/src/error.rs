//! Everything that can keep a command from being done, and how it is told to people.

use std::io;

use contracts::v1::Complaint;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::complaint::Sources;
use crate::exit::Exit;
use crate::output::{Output, printable};

const DETAILS_SHOWN_MAX: usize = 50;

/// Why a command was not done.
#[derive(Debug)]
pub(crate) enum Error {
    /// The request is wrong; it was not sent.
    Request {
        /// What was found.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// The definition has complaints.
    Complaints {
        /// What is wrong with it.
        complaints: Vec<Complaint>,
        /// The texts, to show the lines.
        sources: Sources,
    },
    /// The server refused.
    Refused(Box<Status>),
    /// The server could not be reached.
    Unreachable {
        /// The addresses that were tried.
        servers: Vec<String>,
        /// What the transport said.
        cause: String,
    },
    /// The watch broke and did not come back; the run goes on.
    WatchLost {
        /// The run.
        run_id: String,
        /// What the last attempt said.
        cause: Box<Error>,
    },
    /// Stdout could not be written.
    Output(io::Error),
}

impl Error {
    /// A request that is wrong.
    pub(crate) fn request(message: impl Into<String>) -> Error {
        Error::Request { message: message.into(), help: None }
    }

    /// What the server said no to.
    pub(crate) fn refused(status: Status) -> Error {
        Error::Refused(Box::new(status))
    }

    /// Adds what to do to a wrong request.
    pub(crate) fn help(self, remedy: impl Into<String>) -> Error {
        match self {
            Error::Request { message, .. } => Error::Request { message, help: Some(remedy.into()) },
            other => other,
        }
    }

    /// What the process exits with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Error::Request { .. } | Error::Complaints { .. } => Exit::BadRequest,
            Error::Refused(status) => exit_of(status),
            Error::Unreachable { .. } | Error::WatchLost { .. } | Error::Output(_) => {
                Exit::Unavailable
            }
        }
    }

    /// The lines that tell it, without the word `error`. The first is the message.
    fn lines(&self) -> Vec<String> {
        match self {
            Error::Request { message, help } => {
                let mut lines = vec![message.clone()];
                lines.extend(help.iter().map(|help| format!("help: {help}")));
                lines
            }
            Error::Complaints { .. } => Vec::new(),
            Error::Refused(status) => refusal(status),
            Error::Unreachable { servers, cause } => vec![
                format!("cannot reach {}: {cause}", servers.join(" or ")),
                "help: start one with `orchestrator up`, or name another with `--server URL`"
                    .to_owned(),
            ],
            Error::WatchLost { run_id, cause } => {
                let mut lines = cause.lines();
                lines.push(format!(
                    "help: the run was not stopped; follow it with `orchestrator runs watch \
                     {run_id}`"
                ));
                lines
            }
            Error::Output(error) => vec![format!("cannot write to stdout: {error}")],
        }
    }

    /// The first line of what is told.
    pub(crate) fn message(&self) -> String {
        self.lines().into_iter().next().unwrap_or_default()
    }

    /// Tells it on stderr; complaints go to stdout where JSON is asked for.
    pub(crate) fn report(&self, output: &mut Output) {
        if let Error::Complaints { complaints, sources } = self {
            crate::complaint::report(complaints, sources, output);
            return;
        }
        let mark = output.note_paint().red("error:");
        let mut lines = self.lines().into_iter().map(|line| printable(&line));
        let message = lines.next().unwrap_or_default();
        output.note(&format!("{mark} {message}"));
        for line in lines {
            output.note(&format!("  {line}"));
        }
    }
}

fn exit_of(status: &Status) -> Exit {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated => Exit::BadRequest,
        // Told to come back later it is the server's state, else the request's size.
        Code::ResourceExhausted if status.get_details_retry_info().is_none() => Exit::BadRequest,
        _ => Exit::Unavailable,
    }
}

/// Message, reason, fields and remedy of a refusal.
fn refusal(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut lines = vec![if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status.message().to_owned()
    }];
    if let Some(bad) = details.bad_request() {
        let violations = &bad.field_violations;
        if violations.len() > 1 && violations.iter().all(|it| lines[0].contains(&it.description)) {
            // The message has all of them in one line; below each has its own.
            lines[0] = format!("{} things are wrong with the request", violations.len());
        }
        for violation in violations.iter().take(DETAILS_SHOWN_MAX) {
            add_detail(&mut lines, &violation.field, &violation.description);
        }
        if violations.len() > DETAILS_SHOWN_MAX {
            lines.push(format!("and {} more", violations.len() - DETAILS_SHOWN_MAX));
        }
    }
    for violation in details.quota_failure().iter().flat_map(|quota| &quota.violations) {
        add_detail(&mut lines, &violation.subject, &violation.description);
    }
    for violation in details.precondition_failure().iter().flat_map(|failure| &failure.violations) {
        add_detail(&mut lines, &violation.subject, &violation.description);
    }
    if let Some(info) = details.error_info() {
        lines.push(format!("reason: {}", info.reason));
        if let Some(remedy) = remedy(&info.reason, info.metadata.get("remedy")) {
            lines.push(format!("help: {remedy}"));
        }
    } else if status.code() == Code::Unimplemented {
        lines.push("help: the server does not know this method; is it of another version?".into());
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        lines.push(format!("help: try again in {}", crate::moment::duration(delay)));
    }
    lines
}

/// Adds a detail unless the message has said it.
fn add_detail(lines: &mut Vec<String>, subject: &str, description: &str) {
    let message = &lines[0];
    if message.contains(subject) && message.contains(description) {
        return;
    }
    let separator = if subject.is_empty() { "" } else { ": " };
    lines.push(format!("{subject}{separator}{description}"));
}

/// What the server suggests, or what this client knows to do about a reason.
fn remedy(reason: &str, said: Option<&String>) -> Option<String> {
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        return Some(said.clone());
    }
    let known = match reason {
        "WORKFLOW_NOT_FOUND" => "`orchestrator workflows list` shows those that are registered",
        "RUN_NOT_FOUND" => "`orchestrator runs list` shows the runs",
        "STEP_NOT_FOUND" => "`orchestrator runs get RUN` shows the run's steps",
        "AGENT_NOT_FOUND" => "`orchestrator agents list` shows those that are connected",
        "DEAD_LETTER_NOT_FOUND" => "`orchestrator dead-letters list` shows those that are there",
        "WORKFLOW_EXISTS" => "raise its `version`, or replace it with `--replace`",
        "REQUEST_ID_REUSED" => "use another `--request-id` for another request",
        "RUN_NOT_ENDED" => "wait for its end, or cancel it with `orchestrator runs cancel RUN`",
        "STEP_NOT_WAITING" => "`orchestrator doctor RUN` says what the run waits for",
        "OVERLOADED" => "the server is busy; try again later",
        "INTERNAL" => "look for the message in the server's log",
        _ => return None,
    };
    Some(known.to_owned())
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_of_several_fields_has_a_line_for_each() {
        let mut details = ErrorDetails::with_error_info("INVALID_PARAMS", "orchestrator.v1", []);
        details.add_bad_request_violation("params.n", "0 is too low");
        details.add_bad_request_violation("params.s", "\"c\" is not known");
        let message = "params.n: 0 is too low; params.s: \"c\" is not known";
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let expected = [
            "2 things are wrong with the request",
            "params.n: 0 is too low",
            "params.s: \"c\" is not known",
            "reason: INVALID_PARAMS",
        ];
        assert_eq!(refusal(&status), expected);
    }

    #[test]
    fn a_refusal_says_each_thing_once_with_reason_and_remedy() {
        let metadata = [("remedy".to_owned(), "give 1 to 9".to_owned())];
        let mut details =
            ErrorDetails::with_error_info("INVALID_FIELD", "orchestrator.v1", metadata);
        details.add_bad_request_violation("priority", "12 is too high");
        details.add_bad_request_violation("labels", "65 are too many");
        let message = "priority: 12 is too high";
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let expected = [
            "priority: 12 is too high",
            "labels: 65 are too many",
            "reason: INVALID_FIELD",
            "help: give 1 to 9",
        ];
        assert_eq!(refusal(&status), expected);
    }
}
