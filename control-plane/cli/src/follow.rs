//! Follows a run to its end: tells progress, says why it waits, and carries an interrupt to it.

use std::collections::HashSet;
use std::time::Duration;

use contracts::v1::{CancelRunRequest, DiagnoseRunRequest, ListStepsRequest, Run, RunStatus};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::mpsc;
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::commands::Session;
use crate::connection::orchestrator;
use crate::error::Error;
use crate::output::one_line;
use crate::progress::Progress;
use crate::watch::{RECONNECT_TIME_MAX, Seen, watch};
use crate::{moment, request_id, status};

const TICK: Duration = Duration::from_millis(200);
/// A run that brings no event for so long is asked why it waits.
const SILENCE: Duration = Duration::from_secs(3);
/// Asked in vain, it is asked less and less often, down to this.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const FINDINGS_MAX: usize = 100;
const INTERRUPTS_MAX: usize = 4;
/// So many steps are asked for before anything is told.
const KNOWN_PAGES_MAX: usize = 5;
const KNOWN_PAGE_SIZE: i32 = 1000;
const TEXT_CHARS_MAX: usize = 400;

/// How following ended.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The run ended.
    Ended(Box<Run>),
    /// A defect of the engine holds the run; it will not go on by itself.
    Stuck,
    /// The user left.
    Left,
}

/// What the user's interrupts do.
pub(crate) enum OnInterrupt {
    /// The first cancels the run, the second leaves.
    Cancel(mpsc::Receiver<()>),
    /// Nothing special: they end the process.
    Nothing,
}

/// Follows a run from its first event to its end.
pub(crate) async fn follow(
    session: &mut Session,
    run: &Run,
    on_interrupt: OnInterrupt,
) -> Result<Followed, Error> {
    let started = run.create_time.as_ref().and_then(moment::time).unwrap_or_else(moment::now);
    let mut progress = Progress::new(&run.workflow, started, &session.output);
    for path in known(session, &run.run_id).await {
        progress.expect(&path);
    }
    let followed = steer(session, &run.run_id, &mut progress, on_interrupt).await;
    progress.finish(&mut session.output);
    followed
}

/// The steps that are known so far, those still to come among them. Without them the run is
/// followed as well: it shows only less of what is ahead.
async fn known(session: &Session, run_id: &str) -> Vec<String> {
    let mut known = Vec::new();
    let mut page_token = String::new();
    for _ in 0..KNOWN_PAGES_MAX {
        let request = ListStepsRequest {
            run_id: run_id.to_owned(),
            page_size: KNOWN_PAGE_SIZE,
            page_token: std::mem::take(&mut page_token),
        };
        let page = session
            .client
            .call(async |channel| orchestrator(channel).list_steps(request.clone()).await);
        let Ok(Ok(page)) = time::timeout(SILENCE, page).await else { break };
        known.extend(page.steps.into_iter().map(|step| step.step_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    known
}

async fn steer(
    session: &mut Session,
    run_id: &str,
    progress: &mut Progress,
    on_interrupt: OnInterrupt,
) -> Result<Followed, Error> {
    let mut interrupts = match on_interrupt {
        OnInterrupt::Cancel(interrupts) => Some(interrupts),
        OnInterrupt::Nothing => None,
    };
    let seen = watch(session.client.clone(), run_id.to_owned(), 0, RECONNECT_TIME_MAX);
    let mut seen = std::pin::pin!(seen.chain(stream::pending()));
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked_at = Instant::now();
    let mut silence = SILENCE;
    let mut told = HashSet::new();
    let mut is_broken = false;
    loop {
        let item = tokio::select! {
            item = seen.next() => item,
            () = interrupted(&mut interrupts) => {
                if !cancel(session, run_id, progress, &mut interrupts).await? {
                    return Ok(Followed::Left);
                }
                continue;
            }
            _ = tick.tick() => {
                progress.tick();
                if asked_at.elapsed() >= silence && !is_broken {
                    if diagnose(session, run_id, progress, &mut told).await {
                        return Ok(Followed::Stuck);
                    }
                    asked_at = Instant::now();
                    silence = (silence * 2).min(SILENCE_MAX);
                }
                continue;
            }
        };
        let Some(item) = item else { continue };
        let item = item?;
        if is_broken && !matches!(item, Seen::Broken) {
            is_broken = false;
            progress.note("the connection is back", &mut session.output);
        }
        match item {
            Seen::Event(event) => {
                asked_at = Instant::now();
                silence = SILENCE;
                progress.event(&event, &mut session.output);
            }
            Seen::Update(update) => progress.update(&update, &mut session.output),
            Seen::Ended(run) => return Ok(Followed::Ended(run)),
            Seen::Broken if !is_broken => {
                is_broken = true;
                let text = "the connection to the server broke; connecting again …";
                progress.note(text, &mut session.output);
            }
            Seen::Broken => {}
        }
    }
}

/// Asks the run to stop; false when the user did not want to wait for the answer.
async fn cancel(
    session: &mut Session,
    run_id: &str,
    progress: &mut Progress,
    interrupts: &mut Option<mpsc::Receiver<()>>,
) -> Result<bool, Error> {
    if session.is_cancelling {
        return Ok(false);
    }
    session.is_cancelling = true;
    let text = "cancelling the run; interrupt again to leave without waiting for its end";
    progress.note(text, &mut session.output);
    let request = CancelRunRequest {
        run_id: run_id.to_owned(),
        reason: "interrupted by the user".to_owned(),
        request_id: request_id::request_id(None),
    };
    let cancelled = session
        .client
        .call(async |channel| orchestrator(channel).cancel_run(request.clone()).await);
    tokio::select! {
        // A run that ended meanwhile refuses; the watch brings its end.
        outcome = cancelled => match outcome {
            Ok(_) | Err(Error::Refused(_)) => Ok(true),
            Err(error) => Err(error),
        },
        () = interrupted(interrupts) => Ok(false),
    }
}

async fn interrupted(interrupts: &mut Option<mpsc::Receiver<()>>) {
    let received = match interrupts {
        Some(interrupts) => interrupts.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Tells what the run waits for, each thing once; true when it is stuck.
async fn diagnose(
    session: &mut Session,
    run_id: &str,
    progress: &mut Progress,
    told: &mut HashSet<String>,
) -> bool {
    let request = DiagnoseRunRequest { run_id: run_id.to_owned() };
    let answer = time::timeout(
        SILENCE,
        session
            .client
            .call(async |channel| orchestrator(channel).diagnose_run(request.clone()).await),
    );
    // Not to know why it waits is no reason not to wait; a broken connection tells itself.
    let Ok(Ok(diagnosis)) = answer.await else { return false };
    for finding in &diagnosis.findings {
        let place = if finding.step.is_empty() { "the run" } else { finding.step.as_str() };
        let mut text = format!("{place}: {}", finding.cause);
        if !finding.remedy.is_empty() {
            text.push_str(&format!(" — {}", finding.remedy));
        }
        if told.len() < FINDINGS_MAX && told.insert(text.clone()) {
            let text = one_line(&text, TEXT_CHARS_MAX);
            let line = status::painted("waiting", &text, session.output.note_paint());
            progress.note(&line, &mut session.output);
        }
    }
    diagnosis.status() == RunStatus::Stuck
}

/// The interrupts of this process, from now on: Ctrl-C, and where there is one, SIGTERM. Where
/// they cannot be listened to, they end the process as ever.
#[cfg(unix)]
pub(crate) fn interrupts_of_process() -> mpsc::Receiver<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = mpsc::channel(INTERRUPTS_MAX);
    // Listened to before this returns, so that none in between ends the process.
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let Ok(mut signals) = signal(kind) else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() && sender.send(()).await.is_ok() {}
        });
    }
    receiver
}

/// The interrupts of this process, from now on.
#[cfg(not(unix))]
pub(crate) fn interrupts_of_process() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(INTERRUPTS_MAX);
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() && sender.send(()).await.is_ok() {}
    });
    receiver
}
