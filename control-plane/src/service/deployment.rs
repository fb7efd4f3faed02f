//! `Diagnose`: how the deployment is, as this replica sees it. Looks, and changes nothing.

use std::path::Path;
use std::time::Duration;

use contracts::v1;
use contracts::v1::CheckStatus::{Failure, Ok as Well, Warning};
use engine::{Instant, RunId};
use store::{Facts, ReplicaStatus};

use super::admission::Bound;
use super::auth::Principal;
use super::status::Refusal;
use super::{Context, escalation};
use crate::dispatch::{Counts, WaitingTasks};
use crate::limits;
use crate::replicas::Standing;
use crate::runs::Backlog;

/// `Diagnose`.
///
/// # Errors
/// Never: what cannot be looked at is a finding.
pub async fn diagnose(
    context: &Context,
    who: &Principal,
    _request: v1::DiagnoseRequest,
) -> Result<v1::DiagnoseResponse, Refusal> {
    let clock = context.runs.clock();
    let mut checks = Vec::new();
    let asked = clock.now();
    let facts = context.runs.store().facts().await;
    let answered = clock.now();
    let kind = context.runs.store().kind();
    match facts {
        Ok(facts) => {
            checks.push(database(kind, &facts, answered.since(asked)));
            checks.push(schema(facts.schema));
            checks.extend(facts.now.map(|now| database_clock(Instant(now), asked, answered)));
        }
        Err(error) => checks.push(check(
            "database",
            Failure,
            format!("the {kind} database does not answer: {error}"),
            "see that it runs and can be reached; what is under way goes on once it does",
        )),
    }
    if let Ok(all) = context.replicas.list().await {
        checks.push(replicas(&all, context.replicas.lease_time(), clock.now()));
    }
    checks.push(runs(context.runs.active(), &context.runs.stuck()));
    let waiting = context.dispatcher.backlog(limits::DIAGNOSED_KINDS);
    checks.push(agents(context.dispatcher.counts(), &waiting, clock.now()));
    checks.push(queues(context.runs.backlog(), &waiting, clock.now()));
    checks.push(bounds(&context.bounds()));
    if let Ok(opened) = escalation::opened(context, who).await {
        checks.push(people(&opened, context.policy.escalation_due, clock.now()));
    }
    checks.extend(context.data_dir.as_deref().and_then(room).map(disk));
    Ok(v1::DiagnoseResponse { checks })
}

fn check(
    name: &str,
    status: v1::CheckStatus,
    found: impl Into<String>,
    remedy: impl Into<String>,
) -> v1::Check {
    let (found, remedy) = (found.into(), remedy.into());
    v1::Check { name: name.to_owned(), status: status.into(), found, remedy }
}

fn database(kind: &str, facts: &Facts, took: Duration) -> v1::Check {
    let size = megabytes(u64::try_from(facts.bytes).unwrap_or(0));
    let found = format!("{kind} {} with {size} answers within {}", facts.version, span(took));
    if took < limits::STORE_ANSWER_WARN {
        return check("database", Well, found, "");
    }
    check("database", Warning, found, "see to its load, its disk, and the way to it")
}

fn schema(found: i64) -> v1::Check {
    let known = store::SCHEMA_KNOWN;
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => check("schema", Well, format!("it is step {found}"), ""),
        std::cmp::Ordering::Greater => check(
            "schema",
            Warning,
            format!("it is step {found}; this release knows {known} of them"),
            "a newer release is at work on it: bring this server up to it",
        ),
        std::cmp::Ordering::Less => check(
            "schema",
            Failure,
            format!("it is step {found}; this release needs {known}"),
            "start the server anew: it brings the schema up to date",
        ),
    }
}

/// The database's clock was read at some time between these two.
fn database_clock(there: Instant, asked: Instant, answered: Instant) -> v1::Check {
    let apart = there.since(answered).max(asked.since(there));
    if apart < limits::CLOCK_SKEW_WARN {
        let found = "this server and the database agree on the time";
        return check("clock", Well, found, "");
    }
    let ahead = if there > answered { "behind" } else { "ahead of" };
    let found = format!("this server's clock is {} {ahead} the database's", span(apart));
    let remedy = "keep the clocks of all machines by NTP, then start the servers anew: a server \
                  reads the wall clock once";
    check("clock", Warning, found, remedy)
}

/// The questions to people that are open, by when they were opened, the oldest first.
fn people(opened: &[Instant], due: Duration, now: Instant) -> v1::Check {
    let Some(&oldest) = opened.first() else {
        return check("people", Well, "nobody is asked", "");
    };
    let many = if opened.len() >= limits::ESCALATIONS_COUNTED { "at least " } else { "" };
    let (all, waited) = (opened.len(), span(now.since(oldest)));
    let overdue = opened.iter().take_while(|at| at.after(due) <= now).count();
    let found = format!(
        "{many}{all} escalations are open, the oldest for {waited}; {overdue} of them are overdue"
    );
    if overdue == 0 {
        return check("people", Well, found, "");
    }
    let remedy = "decide them: `orchestrator escalations list --overdue`";
    check("people", Warning, found, remedy)
}

fn replicas(all: &[Standing], lease: Duration, now: Instant) -> v1::Check {
    let name = |it: &Standing| {
        let id = it.row.id.to_string();
        if it.row.address.is_empty() { id } else { it.row.address.clone() }
    };
    let mut wrong = Vec::new();
    for it in all.iter().filter(|it| !it.is_self) {
        let age = it.lease_age.unwrap_or_default();
        if it.row.status == ReplicaStatus::Fenced && it.runs > 0 {
            let (who, runs) = (name(it), it.runs);
            wrong.push(format!("the {runs} runs of {who}, which is gone, are being taken over"));
        } else if it.row.status != ReplicaStatus::Fenced && age >= lease {
            wrong.push(format!("{} was not heard of for {}", name(it), span(age)));
        } else if it.row.status != ReplicaStatus::Fenced && age < lease {
            // It was seen up to a quarter of a lease after it was written.
            let there = Instant(it.row.seen_at);
            let seen = Instant(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(0)));
            let apart = there.since(seen).max(seen.since(there));
            if it.lease_age.is_some() && apart >= limits::CLOCK_SKEW_WARN + lease / 2 {
                wrong.push(format!("the clock of {} is {} apart", name(it), span(apart)));
            }
        }
    }
    let live = all.iter().filter(|it| it.row.status != ReplicaStatus::Fenced).count();
    let found = format!("{live} live, the lease is {}", span(lease));
    if wrong.is_empty() {
        return check("replicas", Well, found, "");
    }
    let found = format!("{found}; {}", wrong.join("; "));
    let remedy = "look at them: `orchestrator replicas list`, and their logs";
    check("replicas", Warning, found, remedy)
}

fn runs(active: usize, stuck: &[RunId]) -> v1::Check {
    let Some(first) = stuck.first() else {
        return check("runs", Well, format!("{active} in memory, none is stuck"), "");
    };
    let named: Vec<String> =
        stuck.iter().take(limits::DIAGNOSED_KINDS).map(ToString::to_string).collect();
    let found = format!("{active} in memory, {} are stuck: {}", stuck.len(), named.join(", "));
    let remedy = format!("see why, and report it: `orchestrator doctor {first}`");
    check("runs", Failure, found, remedy)
}

fn agents(counts: Counts, waiting: &[WaitingTasks], now: Instant) -> v1::Check {
    let Counts { agents, running, .. } = counts;
    let found = format!("{agents} connected, {running} tasks are out");
    let missing: Vec<&WaitingTasks> = waiting.iter().filter(|it| it.is_missing).collect();
    let Some(first) = missing.first() else { return check("agents", Well, found, "") };
    let causes: Vec<String> = missing.iter().map(|it| wait_of(it, now)).collect();
    let found = format!("{found}; {}", causes.join("; "));
    check("agents", Warning, found, first.remedy.clone())
}

fn wait_of(tasks: &WaitingTasks, now: Instant) -> String {
    let WaitingTasks { count, cause, .. } = tasks;
    let tasks_wait = if *count == 1 { "task waits" } else { "tasks wait" };
    format!("{count} {tasks_wait}, for {}: {cause}", span(now.since(tasks.since)))
}

/// What waits within the server and for agents that have no room: what limits just now.
fn queues(backlog: Backlog, waiting: &[WaitingTasks], now: Instant) -> v1::Check {
    let Backlog { commands, commits, starts, command_wait, commit_wait, start_wait } = backlog;
    let queues = [
        (commits, commit_wait, "transitions", "the database limits: see to its disk and load"),
        (commands, command_wait, "commands", "the processor limits: add a replica"),
        (starts, start_wait, "new runs", "what is under way takes all there is: add a replica"),
    ];
    let longest = queues.into_iter().max_by_key(|(_, wait, ..)| *wait);
    if let Some((count, wait, what, remedy)) = longest
        && wait >= limits::QUEUE_WAIT_NOTED
    {
        let found = format!("{count} {what} wait, each for {} or longer", span(wait));
        return check("waiting", Warning, found, remedy);
    }
    if let Some(busy) = waiting.iter().find(|it| !it.is_missing) {
        let found = format!("agents limit: {}", wait_of(busy, now));
        return check("waiting", Well, found, busy.remedy.clone());
    }
    check("waiting", Well, "nothing waits in the server", "")
}

fn bounds(bounds: &[Bound]) -> v1::Check {
    let percent = |bound: &Bound| bound.used.saturating_mul(100) / bound.max.max(1);
    let Some(fullest) = bounds.iter().max_by_key(|bound| percent(bound)) else {
        return check("limits", Well, "there are none", "");
    };
    let Bound { name, what, used, max, remedy } = *fullest;
    let found = format!("{used} of at most {max} {what} (`{name}`)");
    if fullest.is_reached() {
        return check("limits", Failure, format!("new runs are refused: {found}"), remedy);
    }
    if percent(fullest) >= limits::BOUND_WARN_PERCENT {
        return check("limits", Warning, format!("nearly reached: {found}"), remedy);
    }
    check("limits", Well, format!("the fullest has {}%: {found}", percent(fullest)), "")
}

/// How much room there is on the disk of a folder, in bytes.
fn room(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn disk(free: u64) -> v1::Check {
    let found = format!("{} are free for the embedded store", megabytes(free));
    let remedy = "make room, or shorten `retention_age`: what cannot be written is not begun";
    let status = match free {
        _ if free < limits::DISK_FREE_MIN => Failure,
        _ if free < limits::DISK_FREE_WARN => Warning,
        _ => return check("disk", Well, found, ""),
    };
    check("disk", status, found, remedy)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / (1024 * 1024))
}

/// A span of time for people: `3ms`, `1.5s`, `2m 05s`, `1h 02m`.
fn span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{:.1}s", span.as_secs_f64()),
        seconds @ 60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests;
