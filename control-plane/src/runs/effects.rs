//! Carries out what was decided, once it is durable. Everything here can be done twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::effect::Acquire;
use engine::event::{Child, Ending, Origin, Parent};
use engine::task::Json;
use engine::{Command, Effect, InstanceId, RunId, State};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::children::Children;
use super::keys::{Holder, Verdict};
use super::{Error, NewRun, Notifier, Runs, Started, lock, started};
use crate::dispatch::Batch;
use crate::limits;

/// Carries out effects.
pub(crate) struct Effects {
    runs: Runs,
    notifier: Notifier,
    /// Errands are what must wait for something: child runs, notifications.
    errands: Arc<Semaphore>,
    /// The child runs that are being started.
    starting: Arc<Mutex<HashMap<RunId, Starting>>>,
    children: Children,
}

/// A child run that is being started.
#[derive(Default)]
struct Starting {
    /// How many errands are about it.
    errands: usize,
    /// It is to be cancelled as soon as it is there, and why.
    cancel: Option<String>,
}

impl Effects {
    pub(crate) fn new(runs: Runs, notifier: Notifier) -> Self {
        Self {
            runs,
            notifier,
            errands: Arc::new(Semaphore::new(limits::ERRANDS_MAX)),
            starting: Arc::default(),
            children: Children::default(),
        }
    }

    /// Looks from time to time for children whose ends were not heard of.
    pub(crate) fn look_for_children(&self, shutdown: CancellationToken) {
        tokio::spawn(self.children.clone().look(self.runs.clone(), shutdown));
    }

    /// The runs of this process are other replicas' now.
    pub(crate) fn forget_children(&self) {
        self.children.forget_all();
    }

    /// Nobody here waits for these any more.
    pub(super) fn forget_children_of(&self, children: &[RunId]) {
        children.iter().for_each(|child| self.children.told(*child));
    }

    /// Carries out the effects of a transition. What can wait until others' are carried out too
    /// goes into `batch`, which is done before anything that could not stand behind it.
    pub(crate) fn carry_out(&self, state: &State, effects: Vec<Effect>, batch: &mut Batch) {
        for effect in effects {
            match effect {
                Effect::Dispatch(order) => batch.submit(order),
                Effect::Ended { status, outputs, error } => {
                    batch.withdraw_run(state.id());
                    self.run_ended(state, status, outputs, error);
                }
                other => {
                    self.runs.shared.dispatcher.carry_out_all(batch);
                    self.carry_out_one(state, other);
                }
            }
        }
    }

    /// A run has ended: its keys are given back, and the run above is told.
    fn run_ended(
        &self,
        state: &State,
        status: Ending,
        outputs: Option<Json>,
        error: Option<String>,
    ) {
        let run = state.id();
        self.runs.shared.keys.release_run(run);
        if let Some(parent) = state.started().parent {
            self.tell_parent(run, parent, status, outputs, error);
        }
    }

    /// Carries out everything that a run owes which was just taken over: its tasks may still be
    /// at agents that come back. What this process did for it before, on the word of a state
    /// that is gone, is made to fit. `decided` are the effects of the same transition.
    pub(crate) fn carry_out_adopted(&self, state: &State, ahead: Duration, decided: Vec<Effect>) {
        let run = state.id();
        let (mut orders, mut others, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        let mut held = false;
        for effect in state.pending_effects() {
            match &effect {
                Effect::Acquire(acquire) => wanted.push(acquire.instance),
                Effect::Hold(hold) => held = *hold,
                _ => {}
            }
            match effect {
                Effect::Dispatch(order) => orders.push(order.by_clock(ahead)),
                other => others.push(other),
            }
        }
        // An end among what was decided is not the last word where the state owes something
        // still: the run was retried in the same transition.
        let (ends, decided): (Vec<_>, Vec<_>) =
            decided.into_iter().partition(|effect| matches!(effect, Effect::Ended { .. }));
        for end in ends {
            self.carry_out_one(state, end);
        }
        self.runs.shared.dispatcher.hold_run(run, held);
        self.runs.shared.keys.keep(run, &wanted);
        self.runs.shared.dispatcher.expect(orders);
        for effect in others {
            match effect {
                Effect::StartChild { instance, path, child } => {
                    self.start_child(state, instance, &path, *child, true);
                }
                other => self.carry_out_one(state, other),
            }
        }
        // Of what was decided just now, this follows from no state.
        for effect in decided {
            if matches!(effect, Effect::Proceed { .. }) {
                self.carry_out_one(state, effect);
            }
        }
    }

    /// Carries out the end of a run that ended durably, though nobody was told so.
    pub(crate) fn carry_out_end(&self, state: &State) {
        if let Some((status, outputs, error)) = end_of(state) {
            self.carry_out_one(state, Effect::Ended { status, outputs, error });
        }
    }

    fn carry_out_one(&self, state: &State, effect: Effect) {
        let run = state.id();
        let dispatcher = &self.runs.shared.dispatcher;
        match effect {
            Effect::Dispatch(order) => dispatcher.submit(*order),
            Effect::CancelTask { key, reason, grace } => dispatcher.cancel(&key, &reason, grace),
            Effect::Withdraw { key } => dispatcher.withdraw(&key),
            Effect::Proceed { key } => dispatcher.proceed(&key),
            Effect::Hold(hold) => dispatcher.hold_run(run, hold),
            Effect::Acquire(acquire) => self.acquire(run, &acquire),
            Effect::Release { instance } => {
                self.runs.shared.keys.release(Holder { run, instance });
            }
            Effect::StartChild { instance, path, child } => {
                self.start_child(state, instance, &path, *child, false);
            }
            Effect::CancelChild { run: child, reason } => self.cancel_child(child, reason),
            Effect::RollBackChild { instance, run: child } => {
                let parent = Parent { run, instance, depth: 0 };
                self.children.undoes(child, parent);
                let runs = self.runs.clone();
                self.errand(async move { roll_back_child(&runs, parent, child).await });
            }
            Effect::RolledBackForParent { complete } => {
                if let Some(parent) = state.started().parent {
                    let runs = self.runs.clone();
                    self.errand(async move { tell_undone(&runs, parent, run, complete).await });
                }
            }
            Effect::Notify { instance, channels, message } => {
                self.notify(run, instance, channels, message);
            }
            Effect::Ended { status, outputs, error } => {
                dispatcher.withdraw_run(run);
                self.run_ended(state, status, outputs, error);
            }
        }
    }

    fn acquire(&self, run: RunId, acquire: &Acquire) {
        let holder = Holder { run, instance: acquire.instance };
        self.runs.shared.keys.acquire(holder, acquire);
    }

    /// One that was `begun` before may be there, and goes on wherever it is: it is looked for
    /// first, for to start it again would take it into memory.
    fn start_child(
        &self,
        state: &State,
        instance: InstanceId,
        path: &str,
        child: Child,
        begun: bool,
    ) {
        let runs = self.runs.clone();
        let above = Above {
            run: state.id(),
            instance,
            path: path.to_owned(),
            depth: state.started().parent.map_or(0, |parent| parent.depth) + 1,
            started: state.started().clone(),
        };
        let (starting, children) = (Arc::clone(&self.starting), self.children.clone());
        lock(&starting).entry(child.run).or_default().errands += 1;
        self.errand(async move {
            let parent = Parent { run: above.run, instance, depth: above.depth };
            let started = match begun && is_under_way(&runs, child.run).await {
                true => Ok(None),
                false => start_child(&runs, &above, &child).await,
            };
            let cancel = started_or_not(&mut lock(&starting), child.run);
            match (started, cancel) {
                (Ok(Some((status, outputs, error))), _) => {
                    report_end(&runs, parent, child.run, status, outputs, error).await;
                }
                (Ok(None), cancel) => {
                    children.wait_for(child.run, parent);
                    if let Some(reason) = cancel {
                        cancel_child(&runs, child.run, reason).await;
                    }
                }
                (Err(why), _) => {
                    report_end(&runs, parent, child.run, Ending::Failure, None, Some(why)).await;
                }
            }
        });
    }

    fn cancel_child(&self, child: RunId, reason: String) {
        if let Some(starting) = lock(&self.starting).get_mut(&child) {
            starting.cancel = Some(reason);
            return;
        }
        let runs = self.runs.clone();
        self.errand(async move { cancel_child(&runs, child, reason).await });
    }

    fn tell_parent(
        &self,
        child: RunId,
        parent: Parent,
        status: Ending,
        outputs: Option<Json>,
        error: Option<String>,
    ) {
        let (runs, children) = (self.runs.clone(), self.children.clone());
        self.errand(async move {
            report_end(&runs, parent, child, status, outputs, error).await;
            children.told(child);
        });
    }

    fn notify(&self, run: RunId, instance: InstanceId, channels: Vec<String>, message: String) {
        let (runs, notifier) = (self.runs.clone(), self.notifier.clone());
        self.errand(async move {
            let (sent, error) = match notifier.send(&channels, &message).await {
                Ok(sent) => (sent, None),
                Err(error) => (None, Some(error)),
            };
            persist(|| {
                let (sent, error) = (sent.clone(), error.clone());
                runs.ask(run, Command::Notified { instance, sent, error })
            })
            .await;
        });
    }

    fn errand(&self, errand: impl Future<Output = ()> + Send + 'static) {
        let errands = Arc::clone(&self.errands);
        tokio::spawn(async move {
            let _permit = errands.acquire().await;
            errand.await;
        });
    }
}

impl Runs {
    /// Tells runs what became of the keys that they asked for.
    pub(crate) fn tell(&self, verdicts: Vec<Verdict>) {
        if verdicts.is_empty() {
            return;
        }
        let runs = self.clone();
        tokio::spawn(async move {
            for verdict in verdicts {
                let which = verdict.which();
                let Verdict { holder, command } = verdict;
                let settles = !matches!(command, Command::Displaced { .. });
                persist(|| runs.ask(holder.run, command.clone())).await;
                if settles {
                    runs.shared.keys.told(holder, which);
                }
            }
        });
    }
}

/// Orders by this process's clock, where the run's time is ahead of it.
pub(super) fn by_clock(effects: Vec<Effect>, ahead: Duration) -> Vec<Effect> {
    if ahead.is_zero() {
        return effects;
    }
    let translated = effects.into_iter().map(|effect| match effect {
        Effect::Dispatch(order) => Effect::Dispatch(Box::new(order.by_clock(ahead))),
        other => other,
    });
    translated.collect()
}

/// The run above a child.
struct Above {
    run: RunId,
    instance: InstanceId,
    path: String,
    depth: u8,
    started: engine::event::RunStarted,
}

/// An errand is over that was to start a child; gives why the child is to be cancelled, if it is.
fn started_or_not(starting: &mut HashMap<RunId, Starting>, child: RunId) -> Option<String> {
    let entry = starting.get_mut(&child)?;
    entry.errands -= 1;
    let cancel = entry.cancel.clone();
    if entry.errands == 0 {
        starting.remove(&child);
    }
    cancel
}

async fn cancel_child(runs: &Runs, child: RunId, reason: String) {
    let origin = Origin { actor: "parent".to_owned(), request: None };
    persist(|| runs.ask(child, Command::Cancel { reason: reason.clone(), origin: origin.clone() }))
        .await;
}

pub(super) type End = (Ending, Option<Json>, Option<String>);

/// Starts a child run; gives how it ended if it has ended already.
async fn start_child(runs: &Runs, above: &Above, child: &Child) -> Result<Option<End>, String> {
    let graph = resolve(runs, above, child).await?;
    let given: serde_json::Value =
        serde_json::from_str(&child.params).map_err(|error| error.to_string())?;
    let params = engine::definition::check_params(&graph, Some(&given)).map_err(|errors| {
        let first: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
        format!("sub-workflow `{}` refuses its params: {}", child.workflow, first.join("; "))
    })?;
    let params: Json = serde_json::Value::Object(params).to_string().into();
    let mut start = started(&graph, params, runs.epoch());
    start.tenant.clone_from(&above.started.tenant);
    start.origin.actor = format!("run:{}/{}", above.run, above.path);
    start.priority = above.started.priority;
    start.labels.clone_from(&above.started.labels);
    start.siblings.clone_from(&above.started.siblings);
    start.parent = Some(Parent { run: above.run, instance: above.instance, depth: above.depth });
    let mut pause = limits::STORE_RETRY_MIN;
    loop {
        let new = NewRun {
            id: child.run,
            graph: Arc::clone(&graph),
            started: start.clone(),
            request: None,
            fork: None,
        };
        match runs.start(new).await {
            Ok(Started::New(_)) => return Ok(None),
            Ok(Started::Before(_)) => return ended_before(runs, child.run).await,
            Err(Error::Overloaded(_) | Error::Unavailable(_)) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::STORE_RETRY_MAX);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Whether a run is there and has not ended. When that cannot be read, whoever starts it finds out.
async fn is_under_way(runs: &Runs, run: RunId) -> bool {
    let standings = runs.store().standings(&[run]).await.unwrap_or_default();
    standings.first().is_some_and(|standing| !standing.ended)
}

/// How a run ended, if it has.
fn end_of(state: &State) -> Option<End> {
    let engine::RunStatus::Ended(ended) = state.status() else { return None };
    let status = match ended {
        engine::EndedStatus::Success => Ending::Success,
        engine::EndedStatus::Failure => Ending::Failure,
        engine::EndedStatus::Cancelled => Ending::Cancelled,
        engine::EndedStatus::RolledBack => Ending::RolledBack,
    };
    let error = state.failure().1.map(ToOwned::to_owned);
    Some((status, state.outputs().cloned(), error))
}

pub(super) async fn ended_before(runs: &Runs, child: RunId) -> Result<Option<End>, String> {
    let mut pause = limits::STORE_RETRY_MIN;
    loop {
        match runs.read(child).await {
            Ok((_, state)) => return Ok(end_of(&state)),
            Err(Error::Unavailable(_)) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::STORE_RETRY_MAX);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The child's definition: a registered one, else one that was handed in beside the parent's.
async fn resolve(
    runs: &Runs,
    above: &Above,
    child: &Child,
) -> Result<Arc<engine::graph::Graph>, String> {
    let tenant = &above.started.tenant;
    let mut pause = limits::STORE_RETRY_MIN;
    let registered = loop {
        let found = runs.store().workflow(tenant, &child.workflow, child.version.as_deref()).await;
        match found {
            Ok(found) => break found,
            Err(error) => {
                tracing::warn!(%error, "a sub-workflow cannot be looked up just now");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::STORE_RETRY_MAX);
            }
        }
    };
    let hash = match registered {
        Some(row) => row.definition_hash,
        None => {
            let sibling = above.started.siblings.get(&child.workflow);
            let version = child.version.as_deref().map(|v| format!("@{v}")).unwrap_or_default();
            sibling
                .ok_or_else(|| {
                    format!("there is no workflow `{}{version}`; register it", child.workflow)
                })?
                .parse()?
        }
    };
    loop {
        match runs.definitions().graph(hash).await {
            Ok(graph) => return Ok(graph),
            Err(crate::definitions::Error::Store(error)) => {
                tracing::warn!(%error, "a definition cannot be read just now");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::STORE_RETRY_MAX);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Has a child run undo all that it has done; one that never was has done nothing.
pub(super) async fn roll_back_child(runs: &Runs, parent: Parent, child: RunId) {
    let asked =
        ask_until_answered(|| runs.ask(child, Command::RollBackForParent { parent: parent.run }))
            .await;
    if let Err(Error::NotFound(_)) = asked {
        tell_undone(runs, parent, child, true).await;
    }
}

/// Tells a run that its child was rolled back, or could not be.
pub(super) async fn tell_undone(runs: &Runs, parent: Parent, child: RunId, complete: bool) {
    let instance = parent.instance;
    persist(|| runs.ask(parent.run, Command::ChildRolledBack { instance, child, complete })).await;
}

pub(super) async fn report_end(
    runs: &Runs,
    parent: Parent,
    child: RunId,
    status: Ending,
    outputs: Option<Json>,
    error: Option<String>,
) {
    persist(|| {
        let (outputs, error) = (outputs.clone(), error.clone());
        let instance = parent.instance;
        let command = Command::ChildEnded { instance, child, status, outputs, error };
        runs.ask(parent.run, command)
    })
    .await;
}

/// Asks again until it is done or refused for good: what is asked this way is idempotent.
async fn persist<F, Asked>(ask: F)
where
    F: Fn() -> Asked,
    Asked: Future<Output = Result<(), Error>>,
{
    drop(ask_until_answered(ask).await);
}

/// The same, with what came of it.
async fn ask_until_answered<F, Asked>(ask: F) -> Result<(), Error>
where
    F: Fn() -> Asked,
    Asked: Future<Output = Result<(), Error>>,
{
    let mut pause = limits::STORE_RETRY_MIN;
    loop {
        match ask().await {
            Err(Error::Overloaded(_) | Error::Unavailable(_)) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::STORE_RETRY_MAX);
            }
            answered => return answered,
        }
    }
}
