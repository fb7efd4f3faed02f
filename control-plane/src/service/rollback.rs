//! Rollbacks of runs: planned, approved, executed, watched, listed; and runs that go on from where
//! they were rolled back to, or begin from a checkpoint of another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::v1;
use contracts::v1::rollback_target::Target;
use engine::definition::check_params;
use engine::event::{RollbackTo, UndoDecision};
use engine::{Command, RollbackView, RunId, State, UndoView};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::auth::Principal;
use super::request::{Known, Mark};
use super::status::Refusal;
use super::{Context, convert, rollback_list, run};
use crate::limits;
use crate::runs::{Fork, NewRun, Started, started};

/// What a watch of a rollback gives.
pub type Rollbacks = ReceiverStream<Result<v1::WatchRollbackResponse, Status>>;

/// `PlanRollback`.
pub async fn plan(
    context: &Context,
    who: &Principal,
    request: v1::PlanRollbackRequest,
) -> Result<v1::PlanRollbackResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let to = target_of(request.target.as_ref())?;
    let needs_approval = request.needs_approval || context.policy.rollback_approval;
    if request.validate_only {
        let (_, state) = context.folded(id).await?;
        let needs_approval = needs_approval || state.graph().rollback_approval;
        let rollback = Some(would_be(context, &state, &to, needs_approval)?);
        return Ok(v1::PlanRollbackResponse { rollback });
    }
    let asked = format!("{to:?} {}", request.needs_approval);
    let parts = [request.run_id.as_bytes(), asked.as_bytes()];
    let mark = Mark::new(&request.request_id, "PlanRollback", &parts)?;
    let command = |origin| Command::PlanRollback { to, needs_approval, origin };
    run::tell(context, who, id, mark.as_ref(), command).await?;
    Ok(v1::PlanRollbackResponse { rollback: Some(current(context, id, 0).await?) })
}

/// `ApproveRollback`.
pub async fn approve(
    context: &Context,
    who: &Principal,
    request: v1::ApproveRollbackRequest,
) -> Result<v1::ApproveRollbackResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let number = number_of(request.number)?;
    short(&request.comment)?;
    let (approve, comment) = (request.approve, request.comment);
    let asked = format!("{number} {approve} {comment}");
    let parts = [request.run_id.as_bytes(), asked.as_bytes()];
    let mark = Mark::new(&request.request_id, "ApproveRollback", &parts)?;
    let command = |origin| Command::ApproveRollback { number, approve, comment, origin };
    run::tell(context, who, id, mark.as_ref(), command).await?;
    let rollback = if approve { Some(current(context, id, number).await?) } else { None };
    Ok(v1::ApproveRollbackResponse { rollback })
}

/// `ExecuteRollback`.
pub async fn execute(
    context: &Context,
    who: &Principal,
    request: v1::ExecuteRollbackRequest,
) -> Result<v1::ExecuteRollbackResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let number = number_of(request.number)?;
    let parts = [request.run_id.as_bytes(), &number.to_be_bytes()];
    let mark = Mark::new(&request.request_id, "ExecuteRollback", &parts)?;
    let command = |origin| Command::ExecuteRollback { number, origin };
    run::tell(context, who, id, mark.as_ref(), command).await?;
    Ok(v1::ExecuteRollbackResponse { rollback: Some(current(context, id, number).await?) })
}

/// `GetRollback`.
pub async fn get(
    context: &Context,
    _who: &Principal,
    request: v1::GetRollbackRequest,
) -> Result<v1::GetRollbackResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let number = if request.number == 0 { 0 } else { number_of(request.number)? };
    Ok(v1::GetRollbackResponse { rollback: Some(known(context, id, number).await?) })
}

/// `DecideUndo`.
pub async fn decide(
    context: &Context,
    who: &Principal,
    request: v1::DecideUndoRequest,
) -> Result<v1::DecideUndoResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    let decision = match request.decision() {
        v1::UndoDecision::Retry => UndoDecision::Retry,
        v1::UndoDecision::Done => UndoDecision::Done,
        v1::UndoDecision::Skip => UndoDecision::Skip,
        v1::UndoDecision::Unspecified => {
            return Err(Refusal::field("decision", "must be retry, done or skip"));
        }
    };
    if request.step.is_empty() {
        return Err(Refusal::field("step", "must be given"));
    }
    short(&request.comment)?;
    if decision == UndoDecision::Skip && request.comment.trim().is_empty() {
        let message = "must say why what was done may stay";
        return Err(Refusal::field("comment", message));
    }
    let asked = format!("{decision:?} {}", request.comment);
    let parts = [request.run_id.as_bytes(), request.step.as_bytes(), asked.as_bytes()];
    let mark = Mark::new(&request.request_id, "DecideUndo", &parts)?;
    let (path, comment) = (request.step, request.comment);
    let command = |origin| Command::DecideUndo { path, decision, comment, origin };
    run::tell(context, who, id, mark.as_ref(), command).await?;
    Ok(v1::DecideUndoResponse { rollback: Some(current(context, id, 0).await?) })
}

/// `WatchRollback`.
pub async fn watch(
    context: &Context,
    _who: &Principal,
    request: v1::WatchRollbackRequest,
) -> Result<Rollbacks, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    current(context, id, 0).await?;
    let permit = Arc::clone(&context.watches).try_acquire_owned().map_err(|_| {
        let max = limits::WATCHES_MAX;
        Refusal::overloaded(format!("{max} watches are open already"))
    })?;
    let (items, stream) = mpsc::channel(limits::WATCH_ITEMS_WAITING);
    let context = context.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let stopping = context.stopping.clone();
        let refused = tokio::select! {
            refused = follow(&context, id, &items) => refused.err(),
            () = items.closed() => None,
            () = stopping.cancelled() => {
                Some(Refusal::unavailable("the server stops; watch again"))
            }
        };
        if let Some(refusal) = refused {
            drop(items.try_send(Err(refusal.into())));
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn follow(
    context: &Context,
    id: RunId,
    items: &mpsc::Sender<Result<v1::WatchRollbackResponse, Status>>,
) -> Result<(), Refusal> {
    let mut wakes = context.runs.wakes(id);
    let mut told: Option<v1::Rollback> = None;
    loop {
        wakes.reading();
        let (_, state) = context.folded(id).await?;
        let rollback = shown(context, &state, 0)?;
        let is_over = rollback.end_time.is_some();
        if told.as_ref() != Some(&rollback) {
            told = Some(rollback.clone());
            let sequence = state.version();
            let item = v1::WatchRollbackResponse { rollback: Some(rollback), sequence };
            if items.send(Ok(item)).await.is_err() {
                return Ok(());
            }
        }
        if is_over {
            return Ok(());
        }
        // Whatever woke it, it looks.
        wakes.next().await;
    }
}

/// `ResumeRun`: lets a paused run go on, or one that was rolled back.
pub async fn resume(
    context: &Context,
    who: &Principal,
    request: v1::ResumeRunRequest,
) -> Result<v1::ResumeRunResponse, Refusal> {
    let v1::ResumeRunRequest { run_id, request_id, params } = request;
    let id = convert::run_id(&run_id, "run_id")?;
    let given = convert::value(params, "params")?;
    let asked = given.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut parts = vec![run_id.as_bytes()];
    // A request without params has the mark that it always had.
    if given.is_some() {
        parts.push(asked.as_bytes());
    }
    let mark = Mark::new(&request_id, "ResumeRun", &parts)?;
    let row = run::row(context, id).await?;
    let rolled_back = i32::from(row.status) == v1::RunStatus::RolledBack as i32;
    if given.is_none() && !rolled_back {
        let command = |origin| Command::Resume { origin };
        let run = run::ask(context, who, &run_id, mark.as_ref(), command).await?;
        return Ok(v1::ResumeRunResponse { run: Some(run) });
    }
    let params = match &given {
        None => None,
        Some(given) => {
            let graph = context.runs.definitions().graph(row.definition_hash).await?;
            let params = check_params(&graph, Some(given)).map_err(run::wrong_params)?;
            Some(convert::params(params))
        }
    };
    let command = |origin| Command::Reopen { params, origin };
    let run = run::ask(context, who, &run_id, mark.as_ref(), command).await?;
    Ok(v1::ResumeRunResponse { run: Some(run) })
}

/// `ResumeRun` of `RecoveryService`.
pub async fn resume_recovered(
    context: &Context,
    who: &Principal,
    request: v1::RecoveryServiceResumeRunRequest,
) -> Result<v1::RecoveryServiceResumeRunResponse, Refusal> {
    let v1::RecoveryServiceResumeRunRequest { run_id, request_id, params } = request;
    let request = v1::ResumeRunRequest { run_id, request_id, params };
    let v1::ResumeRunResponse { run } = resume(context, who, request).await?;
    Ok(v1::RecoveryServiceResumeRunResponse { run })
}

/// `ForkRun`.
pub async fn fork(
    context: &Context,
    who: &Principal,
    request: v1::ForkRunRequest,
) -> Result<v1::ForkRunResponse, Refusal> {
    let id = convert::run_id(&request.run_id, "run_id")?;
    run::check_labels(&request.labels)?;
    let given = convert::value(request.params, "params")?;
    let labels: BTreeMap<String, String> = request.labels.into_iter().collect();
    let asked = format!("{} {given:?} {labels:?}", request.checkpoint);
    let parts = [request.run_id.as_bytes(), asked.as_bytes()];
    let mark = Mark::new(&request.request_id, "ForkRun", &parts)?;
    let store = &**context.runs.store();
    if let Some(mark) = &mark
        && let Known::Before(row) = mark.known(store, who).await?
        && let Some(run) = row.run_id
    {
        return Ok(v1::ForkRunResponse { run: Some(run::shown(context, run).await?) });
    }
    let _permit = context.admit()?;
    let (_, of) = context.folded(id).await?;
    let name = if request.checkpoint.is_empty() { "start" } else { &request.checkpoint };
    let from = RollbackTo::Checkpoint(name.to_owned());
    of.would_undo(&from)?;
    let graph = Arc::clone(of.graph());
    let params = match &given {
        Some(given) => {
            convert::params(check_params(&graph, Some(given)).map_err(run::wrong_params)?)
        }
        None => Arc::clone(&of.started().params),
    };
    let mut begun = started(&graph, params, context.runs.epoch());
    begun.tenant.clone_from(&who.tenant);
    begun.origin = who.origin(mark.as_ref().map(Mark::journal));
    begun.labels.clone_from(&of.started().labels);
    begun.labels.extend(labels);
    begun.labels.insert("forked_from".to_owned(), id.to_string());
    begun.priority = of.started().priority;
    begun.siblings.clone_from(&of.started().siblings);
    let clock = &**context.runs.clock();
    let new_id = crate::ids::run_id(clock);
    let request = mark.map(|mark| mark.row(who, Some(new_id), clock.now()));
    let journal = context.runs.events(id).await?;
    let fork = Some(Box::new(Fork { of, journal, from }));
    let new = NewRun { id: new_id, graph, started: begun, request, fork };
    let (Started::New(id) | Started::Before(id)) = context.runs.start(new).await?;
    Ok(v1::ForkRunResponse { run: Some(run::shown(context, id).await?) })
}

async fn current(context: &Context, id: RunId, number: u32) -> Result<v1::Rollback, Refusal> {
    let (_, state) = context.folded(id).await?;
    shown(context, &state, number)
}

/// The rollback of this number as it ended; 0: the one that is open, else the last.
async fn known(context: &Context, id: RunId, number: u32) -> Result<v1::Rollback, Refusal> {
    let (_, state) = context.folded(id).await?;
    if number == 0 || state.rollbacks().iter().any(|found| found.number == number) {
        return shown(context, &state, number);
    }
    let Some(row) = rollback_list::row(context, id, number).await? else {
        return shown(context, &state, number);
    };
    // The run has gone on since: it is read as it was when the rollback was over.
    let abandoned = rollback_list::is_abandoned(&row);
    let at = context.runs.read_to(id, row.version - i64::from(abandoned)).await?;
    let found = shown(context, &at, number)?;
    if !abandoned {
        return Ok(found);
    }
    let stored = rollback_list::stored(&row)?;
    Ok(v1::Rollback { status: stored.status, end_time: stored.end_time, ..found })
}

/// The rollback of this number; 0: the one that is open, else the last.
fn shown(context: &Context, state: &State, number: u32) -> Result<v1::Rollback, Refusal> {
    let all = state.rollbacks();
    let found = all.iter().rev().find(|found| number == 0 || found.number == number);
    let found = found.ok_or_else(|| {
        let message = match number {
            0 => "the run was not rolled back, and no rollback is planned".to_owned(),
            _ => format!("the run has no rollback {number}"),
        };
        let name = number.to_string();
        Refusal::missing(v1::Reason::RollbackNotFound, "rollback", &name, message)
    })?;
    Ok(rollback(context, state, found))
}

fn would_be(
    context: &Context,
    state: &State,
    to: &RollbackTo,
    needs_approval: bool,
) -> Result<v1::Rollback, Refusal> {
    if state.ended_at().is_none() {
        return Err(engine::Rejection::NotEnded.into());
    }
    let (undos, not_undoable) = state.would_undo(to)?;
    let (duration, cost) = estimate(context, &undos);
    let counts = engine::UndoCounts::of(undos.len(), not_undoable.len());
    Ok(v1::Rollback {
        run_id: state.id().to_string(),
        target: Some(target(to)),
        status: v1::RollbackStatus::Planned.into(),
        requested: true,
        needs_approval,
        undos: undos.iter().map(undo).collect(),
        not_undoable_steps: not_undoable.iter().map(ToString::to_string).collect(),
        estimated_duration: duration,
        estimated_cost: cost,
        counts: Some(rollback_list::counts(&counts)),
        ..v1::Rollback::default()
    })
}

/// A rollback as clients see it.
pub(super) fn rollback(context: &Context, state: &State, view: &RollbackView) -> v1::Rollback {
    let left: Vec<UndoView> = view.undos.iter().filter(|undo| is_open(undo)).cloned().collect();
    let (duration, cost) = estimate(context, &left);
    v1::Rollback {
        run_id: state.id().to_string(),
        number: i32::try_from(view.number).unwrap_or(i32::MAX),
        target: Some(target(&view.to)),
        status: match view.status {
            engine::RollbackStatus::Planned => v1::RollbackStatus::Planned,
            engine::RollbackStatus::Approved => v1::RollbackStatus::Approved,
            engine::RollbackStatus::Running => v1::RollbackStatus::Running,
            engine::RollbackStatus::Stuck => v1::RollbackStatus::Stuck,
            engine::RollbackStatus::Succeeded => v1::RollbackStatus::Succeeded,
            engine::RollbackStatus::Incomplete => v1::RollbackStatus::Incomplete,
            engine::RollbackStatus::Abandoned => v1::RollbackStatus::Abandoned,
        }
        .into(),
        requested: view.asked,
        needs_approval: view.needs_approval,
        actor: view.actor.clone(),
        approved_by: view.approved_by.clone().unwrap_or_default(),
        create_time: Some(convert::timestamp(view.at)),
        end_time: view.ended_at.map(convert::timestamp),
        undos: view.undos.iter().map(undo).collect(),
        not_undoable_steps: view.not_undoable.iter().map(ToString::to_string).collect(),
        estimated_duration: duration,
        estimated_cost: cost,
        counts: Some(rollback_list::counts(&view.counts)),
    }
}

fn is_open(undo: &UndoView) -> bool {
    matches!(undo.status, "pending" | "running" | "stuck")
}

fn undo(view: &UndoView) -> v1::UndoStep {
    let (decision, decided_by, comment) = match &view.decided {
        None => (v1::UndoDecision::Unspecified, String::new(), String::new()),
        Some((decision, by, comment)) => {
            let decision = match decision {
                UndoDecision::Retry => v1::UndoDecision::Retry,
                UndoDecision::Done => v1::UndoDecision::Done,
                UndoDecision::Skip => v1::UndoDecision::Skip,
            };
            (decision, by.clone(), comment.clone())
        }
    };
    v1::UndoStep {
        step: view.path.to_string(),
        status: match view.status {
            "running" => v1::UndoStatus::Running,
            "stuck" => v1::UndoStatus::Stuck,
            "undone" => v1::UndoStatus::Undone,
            "by_hand" => v1::UndoStatus::ByHand,
            "skipped" => v1::UndoStatus::Skipped,
            _ => v1::UndoStatus::Pending,
        }
        .into(),
        action: view.action.to_string(),
        agent: view.agent.as_ref().map(ToString::to_string).unwrap_or_default(),
        child_run_id: view.child.map(|run| run.to_string()).unwrap_or_default(),
        possibly_done: view.possibly_done,
        attempts: i32::try_from(view.attempts).unwrap_or(i32::MAX),
        error: view.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
        decision: decision.into(),
        decided_by,
        comment,
    }
}

/// What the agents that are there declare of the actions, one behind the other.
fn estimate(context: &Context, undos: &[UndoView]) -> (Option<prost_types::Duration>, f64) {
    let mut known: BTreeMap<(Arc<str>, Arc<str>), (f64, f64)> = BTreeMap::new();
    let (mut seconds, mut cost) = (0.0, 0.0);
    for undo in undos {
        let Some(agent) = &undo.agent else { continue };
        let name = (Arc::clone(agent), Arc::clone(&undo.action));
        let (time, price) = *known.entry(name).or_insert_with(|| {
            let views = context.dispatcher.find(agent);
            let cards = views.iter().flat_map(|view| &view.card.actions);
            let card = cards.into_iter().find(|card| *card.name == *undo.action);
            let time = card.and_then(|card| card.expected_duration).map_or(0.0, |time| {
                let nanos = f64::from(time.nanos) / 1e9;
                // Durations that agents declare are far from where this loses digits.
                u32::try_from(time.seconds).map_or(0.0, f64::from) + nanos
            });
            (time, card.map_or(0.0, |card| card.expected_cost))
        });
        seconds += time;
        cost += price;
    }
    let duration = std::time::Duration::try_from_secs_f64(seconds).ok();
    (duration.filter(|time| !time.is_zero()).map(convert::duration), cost)
}

fn target_of(target: Option<&v1::RollbackTarget>) -> Result<RollbackTo, Refusal> {
    match target.and_then(|target| target.target.as_ref()) {
        None | Some(Target::Start(_)) => Ok(RollbackTo::Start),
        Some(Target::Checkpoint(name)) if !name.is_empty() => {
            short(name)?;
            Ok(RollbackTo::Checkpoint(name.clone()))
        }
        Some(Target::BeforeStep(path)) if !path.is_empty() => {
            short(path)?;
            Ok(RollbackTo::Before(path.clone()))
        }
        Some(_) => Err(Refusal::field("target", "must name a checkpoint or a step")),
    }
}

pub(super) fn target(to: &RollbackTo) -> v1::RollbackTarget {
    let target = match to {
        RollbackTo::Start => Target::Start(v1::RollbackToStart {}),
        RollbackTo::Checkpoint(name) => Target::Checkpoint(name.clone()),
        RollbackTo::Before(path) => Target::BeforeStep(path.clone()),
    };
    v1::RollbackTarget { target: Some(target) }
}

fn number_of(number: i32) -> Result<u32, Refusal> {
    let wrong = || Refusal::field("number", format!("must be 1 or more, found {number}"));
    u32::try_from(number).ok().filter(|number| *number > 0).ok_or_else(wrong)
}

fn short(text: &str) -> Result<(), Refusal> {
    let (size, max) = (text.len(), limits::REQUEST_TEXT_BYTES_MAX);
    if size > max {
        return Err(Refusal::field("comment", format!("has {size} bytes; {max} are allowed")));
    }
    Ok(())
}
