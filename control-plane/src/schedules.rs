//! Starts runs by the clock. A schedule is a row of the store; each of its instants leads to one
//! run, whose id is derived from schedule and instant. The run is started first and the instant
//! noted afterwards: the start is idempotent, so a crash between the two loses nothing and repeats
//! nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use contracts::v1::RunStatus;
use engine::definition::check_params;
use engine::definition::schedule::Timer;
use engine::event::Origin;
use engine::graph::{CatchUp, Graph, Overlap, Schedule};
use engine::{Instant, RunId};
use serde::{Deserialize, Serialize};
use store::{OwnerId, RunFilter, ScheduleId, ScheduleRow, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::until;
use crate::limits;
use crate::runs::{self, NewRun, Runs, started};

/// Where the digest begins in a derived run id; what stands before is its time.
const DIGEST_AT: usize = 8;

/// The way to the schedules. Cheap to clone.
#[derive(Clone)]
pub struct Schedules {
    runs: Runs,
    owner: OwnerId,
    changed: Arc<Notify>,
}

/// What is wrong with a schedule for now.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Run(#[from] runs::Error),
    #[error(transparent)]
    Definition(#[from] crate::definitions::Error),
}

/// What is kept of a schedule beside its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Spec {
    cron: String,
    timezone: String,
    catch_up: String,
    overlap: String,
    /// When it was activated, in microseconds: it fires for later instants only.
    since: i64,
}

impl Spec {
    fn of(schedule: &Schedule, since: Instant) -> Self {
        let catch_up = match schedule.catch_up {
            CatchUp::None => "none",
            CatchUp::Latest => "latest",
            CatchUp::All => "all",
        };
        let overlap = match schedule.overlap {
            Overlap::Skip => "skip",
            Overlap::Allow => "allow",
        };
        Self {
            cron: schedule.cron.clone(),
            timezone: schedule.timezone.clone(),
            catch_up: catch_up.to_owned(),
            overlap: overlap.to_owned(),
            since: since.0,
        }
    }

    fn read(row: &ScheduleRow) -> Option<(Self, Timer)> {
        let spec: Self = serde_json::from_slice(&row.spec).ok()?;
        let timer = Timer::new(&spec.cron, &spec.timezone).ok()?;
        Some((spec, timer))
    }
}

/// The identity of a schedule within its workflow.
fn text(cron: &str, timezone: &str) -> String {
    format!("{cron} {timezone}")
}

/// When active schedules fire next.
#[derive(Debug, Default)]
pub struct NextInstants(HashMap<(String, String), Instant>);

impl NextInstants {
    /// When this schedule of a workflow fires next; `None` when it is not active.
    #[must_use]
    pub fn of(&self, workflow: &str, cron: &str, timezone: &str) -> Option<Instant> {
        self.0.get(&(workflow.to_owned(), text(cron, timezone))).copied()
    }
}

impl Schedules {
    /// The schedules of the store in which these runs are. Nothing is started before
    /// [`Schedules::run`].
    #[must_use]
    pub fn new(runs: Runs) -> Self {
        let owner = OwnerId(crate::ids::unique());
        Self { runs, owner, changed: Arc::new(Notify::new()) }
    }

    fn store(&self) -> &dyn Store {
        &**self.runs.store()
    }

    /// Makes the schedule of the version of a workflow that holds now the active one: that of
    /// the version registered last.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn activate(
        &self,
        tenant: &str,
        workflow: &str,
    ) -> Result<(), crate::service::status::Refusal> {
        let row = self.store().workflow(tenant, workflow, None).await?;
        let schedule = match row {
            Some(row) => {
                let graph = self.runs.definitions().graph(row.definition_hash).await?;
                graph.schedule.clone()
            }
            None => None,
        };
        let wanted = schedule.as_ref().map(|schedule| ScheduleId {
            tenant: tenant.to_owned(),
            workflow: workflow.to_owned(),
            schedule: text(&schedule.cron, &schedule.timezone),
        });
        let mut since = self.runs.clock().now();
        for row in self.rows().await? {
            if row.id.tenant != tenant || row.id.workflow != workflow {
                continue;
            }
            if Some(&row.id) == wanted.as_ref() {
                // Registered again: instants that were taken stay taken.
                if let Some((spec, _)) = Spec::read(&row) {
                    since = Instant(spec.since);
                }
            } else {
                self.store().delete_schedule(&row.id).await?;
            }
        }
        if let (Some(id), Some(schedule)) = (wanted, schedule) {
            let spec = serde_json::to_vec(&Spec::of(&schedule, since)).unwrap_or_default();
            self.store().put_schedule(&id, &spec).await?;
        }
        self.changed.notify_one();
        Ok(())
    }

    /// When the active schedules of a tenant fire next.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next_instants(&self, tenant: &str) -> Result<NextInstants, store::Error> {
        let now = self.runs.clock().now();
        let mut next = HashMap::new();
        for row in self.rows().await?.into_iter().filter(|row| row.id.tenant == tenant) {
            if let Some((_, timer)) = Spec::read(&row)
                && let Some(instant) = timer.next(now)
            {
                next.insert((row.id.workflow, row.id.schedule), instant);
            }
        }
        Ok(NextInstants(next))
    }

    /// Starts runs when their instants come, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let began = self.runs.clock().now();
        let mut pause = limits::STORE_RETRY_MIN;
        loop {
            let look = tokio::select! {
                look = self.look(began) => look,
                () = shutdown.cancelled() => return,
            };
            let nap = match look {
                Ok(next) => {
                    pause = limits::STORE_RETRY_MIN;
                    let nap = next.map(|next| until(&**self.runs.clock(), next));
                    nap.unwrap_or(limits::SCHEDULER_NAP_MAX).min(limits::SCHEDULER_NAP_MAX)
                }
                Err(error) => {
                    tracing::warn!(%error, "schedules are late; trying again");
                    pause = (pause * 2).min(limits::STORE_RETRY_MAX);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                () = self.changed.notified() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Takes all instants that are due; gives when to look again.
    async fn look(&self, began: Instant) -> Result<Option<Instant>, Error> {
        let mut next: Option<Instant> = None;
        let mut failed = None;
        for row in self.rows().await? {
            match self.take_due(row, began).await {
                Ok(Some(at)) => next = Some(next.map_or(at, |next| next.min(at))),
                Ok(None) => {}
                // One schedule's trouble is not the others'.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(next), Err)
    }

    /// Takes the instants of one schedule that are due; gives when to look at it again.
    async fn take_due(&self, row: ScheduleRow, began: Instant) -> Result<Option<Instant>, Error> {
        let Some((spec, timer)) = Spec::read(&row) else {
            tracing::error!(workflow = %row.id.workflow, "a schedule cannot be read");
            return Ok(None);
        };
        let base = Instant(row.last_instant.unwrap_or(spec.since).max(spec.since));
        let now = self.runs.clock().now();
        let plan = plan(&timer, &spec.catch_up, base, now, began);
        for (version, due) in (row.version..).zip(plan.due) {
            let fired = match due.how {
                How::Pass => Fired::Done,
                How::Start => self.fire(&row.id, &spec, due.at, due.missed).await?,
            };
            if fired == Fired::Later {
                return Ok(Some(now.after(limits::WATCH_LOOK_EVERY)));
            }
            let taken =
                self.store().advance_schedule(&row.id, version, due.at.0, self.owner).await?;
            if !taken {
                // Another process, or a registration, was here first.
                return Ok(Some(now));
            }
        }
        Ok(if plan.more { Some(now) } else { timer.next(now) })
    }

    /// Starts the run of one instant.
    async fn fire(
        &self,
        id: &ScheduleId,
        spec: &Spec,
        at: Instant,
        missed: bool,
    ) -> Result<Fired, Error> {
        let origin = origin(id);
        let run = RunId::at_instant(at, &origin);
        if spec.overlap == "skip" && self.goes_on(id, run).await? {
            // What is made up for takes its turn behind the run before; what is on time is
            // passed over.
            let later = missed && spec.catch_up == "all";
            tracing::info!(workflow = %id.workflow, at = %at.to_rfc3339(), later,
                "the scheduled run before still goes on");
            return Ok(if later { Fired::Later } else { Fired::Done });
        }
        let found = self.store().workflow(&id.tenant, &id.workflow, None).await?;
        let Some(workflow) = found else { return Ok(Fired::Done) };
        let graph = match self.runs.definitions().graph(workflow.definition_hash).await {
            Ok(graph) => graph,
            Err(error @ crate::definitions::Error::Store(_)) => return Err(error.into()),
            Err(error) => {
                tracing::error!(workflow = %id.workflow, %error, "a scheduled run cannot start");
                return Ok(Fired::Done);
            }
        };
        self.start(id, run, at, &graph).await
    }

    async fn start(
        &self,
        id: &ScheduleId,
        run: RunId,
        at: Instant,
        graph: &Arc<Graph>,
    ) -> Result<Fired, Error> {
        let workflow = &id.workflow;
        let params = match check_params(graph, None) {
            Ok(params) => crate::service::convert::params(params),
            Err(errors) => {
                let first = errors.first().map(|e| format!("{}: {}", e.path, e.message));
                tracing::error!(%workflow, why = ?first, "a scheduled run cannot start");
                return Ok(Fired::Done);
            }
        };
        let mut start = started(graph, params, self.runs.epoch());
        start.tenant.clone_from(&id.tenant);
        start.origin = Origin { actor: format!("schedule:{}", id.schedule), request: None };
        start.labels = BTreeMap::from([("scheduled_for".to_owned(), at.to_rfc3339())]);
        let new =
            NewRun { id: run, graph: Arc::clone(graph), started: start, request: None, fork: None };
        match self.runs.start(new).await {
            Ok(_) => Ok(Fired::Done),
            Err(error @ (runs::Error::Overloaded(_) | runs::Error::Unavailable(_))) => {
                Err(error.into())
            }
            Err(error) => {
                tracing::error!(%workflow, %error, "a scheduled run cannot start");
                Ok(Fired::Done)
            }
        }
    }

    /// Whether an earlier run of the same schedule has not ended.
    async fn goes_on(&self, id: &ScheduleId, next: RunId) -> Result<bool, store::Error> {
        for status in [RunStatus::Running, RunStatus::Waiting, RunStatus::Paused] {
            let filter = RunFilter {
                tenant: Some(id.tenant.clone()),
                workflow: Some(id.workflow.clone()),
                status: i16::try_from(status as i32).ok(),
                parent: None,
            };
            let mut after = None;
            for _ in 0..limits::PAGES_LOOKED_THROUGH_MAX {
                let limit = u32::try_from(limits::PAGE_SIZE_MAX).unwrap_or(u32::MAX);
                let rows = self.store().runs(&filter, after, false, limit).await?;
                if rows.iter().any(|row| row.run_id != next && is_like(row.run_id, next)) {
                    return Ok(true);
                }
                match rows.last() {
                    Some(last) if rows.len() == limits::PAGE_SIZE_MAX => {
                        after = Some(store::Cursor { at: last.created_at, id: last.run_id });
                    }
                    _ => break,
                }
            }
        }
        Ok(false)
    }

    async fn rows(&self) -> Result<Vec<ScheduleRow>, store::Error> {
        let mut rows: Vec<ScheduleRow> = Vec::new();
        while rows.len() < limits::SCHEDULES_MAX {
            let after = rows.last().map(|row| row.id.clone());
            let page = self.store().schedules(after.as_ref(), store::limits::PAGE_ROWS_MAX).await?;
            let is_last = page.len() < store::limits::PAGE_ROWS_MAX as usize;
            rows.extend(page);
            if is_last {
                break;
            }
        }
        Ok(rows)
    }
}

impl std::fmt::Debug for Schedules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedules").finish_non_exhaustive()
    }
}

fn origin(id: &ScheduleId) -> String {
    format!("{} {} {}", id.tenant, id.workflow, id.schedule)
}

/// Whether two runs are of the same schedule: the digests in their ids are equal.
fn is_like(one: RunId, other: RunId) -> bool {
    one.0.as_bytes()[DIGEST_AT..] == other.0.as_bytes()[DIGEST_AT..]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fired {
    Done,
    Later,
}

/// What happens to an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Its run is started.
    Start,
    /// It and all before it are passed over.
    Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    at: Instant,
    how: How,
    missed: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    due: Vec<Due>,
    /// There are more than were taken this time.
    more: bool,
}

/// What to do about the instants behind `base` up to `now`. Those before the process began, and
/// those that are very late, were missed.
fn plan(timer: &Timer, catch_up: &str, base: Instant, now: Instant, began: Instant) -> Plan {
    let late = Instant(now.0.saturating_sub(micros(limits::INSTANT_LATE_MAX)));
    let on_time_from = began.max(late);
    if catch_up == "all" {
        return all(timer, base, now, on_time_from);
    }
    // Missed instants may be many; they are not gone through one by one.
    let edge = base.max(Instant(on_time_from.0 - 1));
    let on_time = all(timer, edge, now, on_time_from);
    let missed = if edge > base { last_between(timer, base, edge) } else { None };
    let mut due = Vec::new();
    if let Some(at) = missed {
        let how = if catch_up == "latest" { How::Start } else { How::Pass };
        due.push(Due { at, how, missed: true });
    }
    due.extend(on_time.due);
    Plan { due, more: on_time.more }
}

fn all(timer: &Timer, base: Instant, now: Instant, on_time_from: Instant) -> Plan {
    let mut due: Vec<Due> = Vec::new();
    let mut last = base;
    while let Some(at) = timer.next(last).filter(|at| *at <= now) {
        if due.len() == limits::INSTANTS_AT_ONCE {
            return Plan { due, more: true };
        }
        due.push(Due { at, how: How::Start, missed: at < on_time_from });
        last = at;
    }
    Plan { due, more: false }
}

/// The last instant behind `from`, at `to` at the latest.
fn last_between(timer: &Timer, from: Instant, to: Instant) -> Option<Instant> {
    timer.next(from).filter(|first| *first <= to)?;
    // The span is doubled backwards from the end until an instant is in it.
    let mut span: i64 = 1_000_000;
    let mut begin = from;
    while to.0.saturating_sub(span) > from.0 {
        let tried = Instant(to.0 - span);
        if timer.next(tried).is_some_and(|at| at <= to) {
            begin = tried;
            break;
        }
        span = span.saturating_mul(2);
    }
    // Between the last span without one and this there are few.
    let mut last = timer.next(begin)?;
    while let Some(at) = timer.next(last).filter(|at| *at <= to) {
        last = at;
    }
    Some(last)
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * 1_000_000;

    fn at(minutes: i64) -> Instant {
        Instant(minutes * 60_000_000)
    }

    /// What becomes of the instants of an hourly schedule: (minute, started).
    fn taken(catch_up: &str, base: i64, now: i64, began: i64) -> Vec<(i64, bool)> {
        let timer = Timer::new("0 * * * *", "UTC").unwrap();
        let plan = plan(&timer, catch_up, at(base), at(now), at(began));
        assert!(!plan.more);
        plan.due.iter().map(|due| (due.at.0 / 60_000_000, due.how == How::Start)).collect()
    }

    #[test]
    fn an_instant_that_comes_while_the_process_runs_is_started() {
        for catch_up in ["none", "latest", "all"] {
            assert_eq!(taken(catch_up, 0, 60, 10), [(60, true)]);
            assert_eq!(taken(catch_up, 60, 119, 10), []);
        }
    }

    #[test]
    fn missed_instants_are_passed_over_made_up_for_once_or_all() {
        assert_eq!(taken("none", 0, 190, 185), [(180, false)]);
        assert_eq!(taken("latest", 0, 190, 185), [(180, true)]);
        assert_eq!(taken("all", 0, 190, 185), [(60, true), (120, true), (180, true)]);
    }

    #[test]
    fn an_instant_that_is_very_late_was_missed_though_the_process_ran() {
        assert_eq!(taken("none", 0, 65, 10), [(60, false)]);
        assert_eq!(taken("latest", 0, 65, 10), [(60, true)]);
    }

    #[test]
    fn an_instant_at_which_the_process_began_is_on_time() {
        assert_eq!(taken("none", 0, 60, 60), [(60, true)]);
    }

    #[test]
    fn years_of_missed_instants_are_passed_over_quickly() {
        let timer = Timer::new("* * * * * *", "UTC").unwrap();
        let now = Instant(10 * 365 * 24 * HOUR);
        let plan = plan(&timer, "latest", Instant(0), now, now);
        assert_eq!(plan.due.len(), 2, "the last one missed, and the one of now");
        assert!(plan.due[0].missed && !plan.due[1].missed);
    }

    #[test]
    fn all_missed_instants_are_taken_in_turns() {
        let timer = Timer::new("* * * * * *", "UTC").unwrap();
        let plan = plan(&timer, "all", Instant(0), Instant(HOUR), Instant(HOUR));
        assert_eq!(plan.due.len(), limits::INSTANTS_AT_ONCE);
        assert!(plan.more);
        assert_eq!(plan.due[0].at, Instant(1_000_000));
    }

    #[test]
    fn runs_of_one_schedule_are_known_by_their_ids() {
        let id = |workflow: &str| ScheduleId {
            tenant: "default".into(),
            workflow: workflow.into(),
            schedule: "0 * * * * UTC".into(),
        };
        let run = |workflow, minute| RunId::at_instant(at(minute), &origin(&id(workflow)));
        assert!(is_like(run("a", 60), run("a", 120)));
        assert_ne!(run("a", 60), run("a", 120));
        assert!(!is_like(run("a", 60), run("b", 60)));
    }
}
