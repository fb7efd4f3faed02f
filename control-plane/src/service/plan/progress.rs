//! `WatchProgress`: how far a recovery is, from its journal as it grows; and `OptimizeResources`.
//!
//! A report belongs to a sequence of the journal. A watch that begins behind one gets every report
//! of what came later, one for each look at the journal; nothing of it is kept in memory.

use std::sync::Arc;
use std::time::Duration;

use contracts::v1::watch_progress_request::Of;
use contracts::v1::{self, IssueStatus, RecoveryPhase, ResourceAction};
use engine::task::Purpose;
use engine::{Event, Instant, RunId};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::stored::Plan;
use crate::limits;
use crate::recovery::progress::{Now, Outline, Phase, PlanIssue, Progress, Report, Standing};
use crate::recovery::resources::{self, What};
use crate::service::auth::Principal;
use crate::service::convert::count;
use crate::service::look::{self, Seen};
use crate::service::status::Refusal;
use crate::service::{Context, convert, run};

/// What a watch gives.
pub type Reports = ReceiverStream<Result<v1::WatchProgressResponse, Status>>;

/// Over which time the history counts unless something else is asked.
const WINDOW: Duration = Duration::from_secs(30 * 60);

/// `WatchProgress`.
pub async fn watch(
    context: &Context,
    who: &Principal,
    request: v1::WatchProgressRequest,
) -> Result<Reports, Refusal> {
    if request.after_sequence < 0 {
        return Err(Refusal::field("after_sequence", "must not be negative"));
    }
    let (run, plan) = which(context, who, request.of).await?;
    let row = run::row(context, run).await?;
    let graph = context.runs.definitions().graph(row.definition_hash).await?;
    let issues = match &plan {
        Some(plan) => plan.outline(),
        // Of a run without a plan each step counts as an issue.
        None => steps_as_issues(&graph),
    };
    let outline = Arc::new(Outline::new(&graph, &issues));
    let permit = Arc::clone(&context.watches).try_acquire_owned().map_err(|_| {
        let max = limits::WATCHES_MAX;
        Refusal::overloaded(format!("{max} watches are open already"))
    })?;
    let (reports, stream) = mpsc::channel(limits::WATCH_ITEMS_WAITING);
    let watch = Watch {
        context: context.clone(),
        run,
        plan: plan.map(|plan| plan.id().to_owned()).unwrap_or_default(),
        progress: Progress::new(outline),
        after: request.after_sequence,
        once: request.once,
        others: Seen::default(),
        looked: None,
        reports,
        _permit: permit,
    };
    tokio::spawn(watch.run());
    Ok(ReceiverStream::new(stream))
}

async fn which(
    context: &Context,
    who: &Principal,
    of: Option<Of>,
) -> Result<(RunId, Option<Plan>), Refusal> {
    match of {
        Some(Of::RunId(id)) => {
            let id = convert::run_id(&id, "run_id")?;
            let (_, state) = context.folded(id).await?;
            let plan = match state.started().labels.get(crate::plans::PLAN_LABEL) {
                Some(plan) => Plan::get(context, who, plan).await.ok(),
                None => None,
            };
            Ok((id, plan.filter(|plan| plan.run() == Some(id))))
        }
        Some(Of::PlanId(id)) => {
            let plan = Plan::get(context, who, &id).await?;
            let run = plan.run().ok_or_else(|| {
                let message = format!(
                    "the recovery plan `{id}` is not executed yet; \
                     `orchestrator plans execute {id}` does it"
                );
                Refusal::new(v1::Reason::PlanState, message)
            })?;
            Ok((run, Some(plan)))
        }
        None => Err(Refusal::field("of", "one of `run_id` and `plan_id` must be given")),
    }
}

fn steps_as_issues(graph: &engine::graph::Graph) -> Vec<PlanIssue> {
    let nodes = &graph.list(engine::graph::Graph::ROOT).nodes;
    let issue = |id: &Arc<str>| PlanIssue {
        issue: Arc::clone(id),
        step: Some(Arc::clone(id)),
        estimate: None,
    };
    nodes.iter().map(|&node| issue(&graph.node(node).id)).collect()
}

struct Watch {
    context: Context,
    run: RunId,
    plan: String,
    progress: Progress,
    after: i64,
    once: bool,
    /// What the other replicas saw of agents when they were asked last.
    others: Seen,
    looked: Option<Instant>,
    reports: mpsc::Sender<Result<v1::WatchProgressResponse, Status>>,
    _permit: OwnedSemaphorePermit,
}

/// Why a watch goes no further.
enum Stop {
    /// The client is gone, or has been told all.
    Over,
    /// The client must be told why.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Watch {
    async fn run(mut self) {
        let stopping = self.context.stopping.clone();
        let reports = self.reports.clone();
        let stop = tokio::select! {
            stop = self.follow() => stop,
            () = stopping.cancelled() => Stop::Refused(Refusal::unavailable(
                "the server stops; watch again with the sequence of the last report seen",
            )),
            () = reports.closed() => Stop::Over,
        };
        if let Stop::Refused(refusal) = stop {
            // With the channel full the reader has long stopped reading; it sees the stream end.
            drop(reports.try_send(Err(refusal.into())));
        }
    }

    async fn follow(&mut self) -> Stop {
        let mut wakes = self.context.runs.wakes(self.run);
        let mut last: Option<v1::ProgressReport> = None;
        loop {
            wakes.reading();
            let is_over = match self.read_on().await {
                Ok(is_over) => is_over,
                Err(stop) => return stop,
            };
            let report = self.report().await;
            let is_new = report.sequence > self.after || last.is_some();
            if (is_new || self.once || self.after == 0) && last.as_ref() != Some(&report) {
                last = Some(report.clone());
                let response = v1::WatchProgressResponse { report: Some(report) };
                if self.reports.send(Ok(response)).await.is_err() {
                    return Stop::Over;
                }
            }
            if is_over || self.once {
                return Stop::Over;
            }
            // Whatever woke it, it looks.
            wakes.next().await;
        }
    }

    /// Takes in what the journal has by now; says whether the run has ended.
    async fn read_on(&mut self) -> Result<bool, Stop> {
        let limit = u32::try_from(limits::JOURNAL_ROWS_READ).unwrap_or(u32::MAX);
        loop {
            let after = self.progress.sequence();
            let rows = self.context.runs.store().journal(self.run, after, limit).await;
            let rows = match rows {
                Ok(rows) => rows,
                // The store may be back at the next look.
                Err(store::Error::Unavailable(_)) => return Ok(false),
                Err(error) => return Err(Refusal::from(error).into()),
            };
            let is_last = rows.len() < limits::JOURNAL_ROWS_READ;
            for row in rows {
                let event = Event::decode(row.kind, &row.body)
                    .map_err(|error| Refusal::internal(&error))?;
                self.progress.apply(row.seq, Instant(row.at), &event);
            }
            if is_last {
                break;
            }
        }
        if self.progress.ended().is_none() {
            return Ok(false);
        }
        let row = run::row(&self.context, self.run).await?;
        Ok(row.ended_at.is_some() && row.version <= self.progress.sequence())
    }

    async fn report(&mut self) -> v1::ProgressReport {
        let now = self.context.runs.clock().now();
        if self.looked.is_none_or(|at| now.since(at) >= limits::LOOK_EVERY) {
            self.looked = Some(now);
            self.others = look::others(&self.context, Some(self.run), None).await;
        }
        let here = self.context.dispatcher.loads(None).into_iter();
        let loads = resources::merged(here.chain(self.others.loads.iter().cloned()));
        let mut now = Now { now, slots: resources::slots(&loads), ..Now::default() };
        let here = self.context.dispatcher.held(self.run).into_iter();
        let here = here.map(|(key, agent, since)| (key.instance, key.purpose, agent, since));
        for (n, purpose, agent, since) in here.chain(self.others.held.iter().cloned()) {
            let held = match purpose {
                Purpose::Do => &mut now.held,
                Purpose::Undo => &mut now.undoing,
            };
            held.entry(n).or_insert((agent, since));
        }
        let report = self.progress.report(&now);
        v1::ProgressReport {
            silent_replicas: self.others.silent.clone(),
            ..shown(self.run, &self.plan, report)
        }
    }
}

fn phase(phase: Phase) -> RecoveryPhase {
    match phase {
        Phase::Mending => RecoveryPhase::Mending,
        Phase::RollingBack => RecoveryPhase::RollingBack,
        Phase::Stuck => RecoveryPhase::Stuck,
        Phase::Handling => RecoveryPhase::HandlingFailure,
        Phase::Over => RecoveryPhase::Over,
    }
}

fn shown(run: RunId, plan: &str, report: Report) -> v1::ProgressReport {
    let names = |wanted: &dyn Fn(Standing) -> bool| {
        let found = report.issues.iter().filter(|(_, standing)| wanted(*standing));
        found.map(|(issue, _)| issue.to_string()).collect::<Vec<String>>()
    };
    let text = |all: &[Arc<str>]| all.iter().map(ToString::to_string).collect();
    v1::ProgressReport {
        run_id: run.to_string(),
        plan_id: plan.to_owned(),
        sequence: report.sequence,
        time: Some(convert::timestamp(report.at)),
        completion_percent: report.completion * 100.0,
        resolved: names(&|standing| standing == Standing::Resolved),
        remaining: names(&|standing| !standing.is_through()),
        blocking: text(&report.blocking),
        by_hand: text(&report.left),
        issues: report
            .issues
            .iter()
            .map(|(issue, standing)| v1::IssueProgress {
                issue_id: issue.to_string(),
                status: issue_status(*standing).into(),
            })
            .collect(),
        active_agents: report
            .active
            .iter()
            .map(|active| v1::ActiveAgent {
                agent: active.agent.to_string(),
                instance: active.instance.as_deref().unwrap_or_default().to_owned(),
                step: active.step.to_string(),
                issue_id: active.issue.as_deref().unwrap_or_default().to_owned(),
                since: Some(convert::timestamp(active.since)),
                undo: active.undo,
            })
            .collect(),
        estimated_end_time: report.estimated_end.map(convert::timestamp),
        utilisation_percent: report.utilisation.map(|share| share * 100.0),
        silent_replicas: vec![],
        agents: report
            .used
            .iter()
            .map(|(agent, used)| v1::AgentUtilisation {
                agent: agent.to_string(),
                offered_seconds: used.offered,
                busy_seconds: used.busy,
            })
            .collect(),
        phase: phase(report.phase).into(),
        undos: count(report.undos.all),
        undos_done: count(report.undos.done),
        undos_stuck: count(report.undos.stuck),
        overhead_percent: report.overhead.share().map(|share| share * 100.0),
        wall_time: Some(convert::duration(report.overhead.wall)),
        longest_chain: Some(convert::duration(report.overhead.chain)),
        status: match report.ended {
            None if report.phase == Phase::Stuck => v1::RunStatus::Stuck,
            None => v1::RunStatus::Running,
            Some(ended) => convert::run_status(engine::RunStatus::Ended(ended.into())),
        }
        .into(),
    }
}

fn issue_status(standing: Standing) -> IssueStatus {
    match standing {
        Standing::Waiting => IssueStatus::Waiting,
        Standing::Ready => IssueStatus::Ready,
        Standing::Running => IssueStatus::Running,
        Standing::Asking => IssueStatus::Asking,
        Standing::Resolved => IssueStatus::Resolved,
        Standing::Failed => IssueStatus::Failed,
        Standing::Skipped => IssueStatus::Skipped,
        Standing::Undoing => IssueStatus::Undoing,
        Standing::Undone => IssueStatus::Undone,
        Standing::Stuck => IssueStatus::Stuck,
    }
}

/// `OptimizeResources`.
pub async fn optimize(
    context: &Context,
    _who: &Principal,
    request: v1::OptimizeResourcesRequest,
) -> Result<v1::OptimizeResourcesResponse, Refusal> {
    let window = match request.window {
        None => WINDOW,
        Some(window) => match Duration::try_from(window) {
            Ok(window) if !window.is_zero() && window <= limits::LOOK_WINDOW_MAX => window,
            _ => {
                let wrong = "must be more than nothing and at most an hour";
                return Err(Refusal::field("window", wrong));
            }
        },
    };
    let others = look::others(context, None, Some(window)).await;
    let here = context.dispatcher.loads(Some(window));
    let loads = resources::merged(here.into_iter().chain(others.loads));
    let (figures, advice) = resources::advise(&loads);
    let load = |seen: resources::Figures| v1::AgentLoad {
        agent: seen.agent,
        slots: count(seen.slots),
        busy_percent: seen.utilisation * 100.0,
        queued: count(seen.queued),
        oldest: Some(convert::duration(seen.oldest)),
        forecast_per_minute: seen.forecast,
        slots_needed: seen.needed,
    };
    let advice = advice.into_iter().map(|one| {
        let (action, instance, to, added) = match one.what {
            What::Add { count } => (ResourceAction::Add, String::new(), String::new(), count),
            What::Drain { instance } => (ResourceAction::Drain, instance, String::new(), 1),
            What::Move { instance, to } => (ResourceAction::Move, instance, to, 1),
        };
        v1::ResourceAdvice {
            action: action.into(),
            agent: one.agent,
            instance,
            to,
            count: count(added),
            reason: one.reason,
        }
    });
    Ok(v1::OptimizeResourcesResponse {
        loads: figures.into_iter().map(load).collect(),
        advice: advice.collect(),
        silent_replicas: others.silent,
    })
}
