//! The loop: a run's mailbox -> decide -> group commit -> effects and answers.
//!
//! One task holds all runs of this process. It never waits for the store: folds and commits are
//! done beside it and come back as messages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::event::Ending;
use engine::{Command, Instant, RunId, State};
use store::{Commit, Outcome, OwnerId};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::adoption::Control;
use super::commit::{Committed, Fault};
use super::effects::{self, Effects};
use super::lanes;
use super::others::{Where, take_over};
use super::parking::{Parked, Parker};
use super::slot::{self, Ask, Decided, Envelope, Flight, Phase, Reply, Slot, lost, refuse_all};
use super::telemetry::Telemetry;
use super::{Error, Runs, Shared, Started, lock};
use crate::audit::Head;
use crate::dispatch::Batch;
use crate::hash::QuickMap;
use crate::limits;

/// A look for a run that came back.
pub(super) struct Loaded {
    pub(super) run: RunId,
    pub(super) found: Found,
}

pub(super) enum Found {
    /// Where its chain of the audit log has come to.
    Head(Head),
    /// It is this process's.
    State(Box<State>),
    /// It is another's.
    There(OwnerId),
    /// It cannot be had.
    Not(Error),
}

/// How word comes to the loop.
pub(super) struct Ways {
    pub(super) inbox: lanes::Receiver<Envelope>,
    pub(super) starts: lanes::Receiver<Envelope>,
    pub(super) committed: mpsc::Receiver<Committed>,
    pub(super) loaded: mpsc::Receiver<Loaded>,
    pub(super) parked: mpsc::Receiver<Parked>,
    pub(super) controls: mpsc::Receiver<Control>,
}

/// What the loop is made of.
pub(super) struct Made {
    pub(super) runs: Runs,
    pub(super) parking: Parker,
    pub(super) shared: Arc<Shared>,
    pub(super) effects: Effects,
    pub(super) commits: lanes::Sender<Box<Commit>>,
    pub(super) loads: mpsc::Sender<Loaded>,
}

pub(super) struct WritePath {
    /// The way to itself, for what is passed on and comes back.
    runs: Runs,
    pub(super) parking: Parker,
    /// All runs are lost; who waits until nothing of them is in the commit.
    losing: Option<oneshot::Sender<()>>,
    pub(super) shared: Arc<Shared>,
    pub(super) effects: Effects,
    pub(super) slots: QuickMap<RunId, Slot>,
    timers: BTreeSet<(Instant, RunId)>,
    commits: lanes::Sender<Box<Commit>>,
    pub(super) loads: mpsc::Sender<Loaded>,
    loading: Arc<Semaphore>,
    stopping: bool,
    in_commit: usize,
    /// What dispatch is to be told of what came at once.
    batch: Batch,
    telemetry: Telemetry,
}

impl WritePath {
    /// A loop that has no runs yet.
    pub(super) fn new(made: Made) -> Self {
        let Made { runs, parking, shared, effects, commits, loads } = made;
        Self {
            runs,
            parking,
            losing: None,
            shared,
            effects,
            slots: QuickMap::default(),
            timers: BTreeSet::new(),
            commits,
            loads,
            loading: Arc::new(Semaphore::new(limits::LOADS_MAX)),
            stopping: false,
            in_commit: 0,
            batch: Batch::default(),
            telemetry: Telemetry::new(),
        }
    }

    /// Goes on until, after `shutdown`, nothing is in the commit any more.
    pub(super) async fn run(mut self, ways: Ways, shutdown: CancellationToken) {
        let Ways { mut inbox, mut starts, mut committed, mut loaded, mut parked, mut controls } =
            ways;
        let (mut envelopes, mut starting) = (Vec::new(), Vec::new());
        loop {
            if self.stopping && self.in_commit == 0 {
                return;
            }
            self.lost_if_settled();
            let accepts = !self.stopping && self.losing.is_none();
            // What is under way goes on before more is taken on.
            let starts_go = self.commits.waiting() < limits::STARTS_BEHIND_COMMITS;
            let pause =
                self.timers.first().map(|(at, _)| crate::clock::until(&*self.shared.clock, *at));
            tokio::select! {
                biased;
                Some(outcomes) = committed.recv() => {
                    self.fetch(outcomes.iter().map(|(run, _)| *run));
                    for (run, outcome) in outcomes {
                        self.committed(run, outcome);
                    }
                }
                Some(load) = loaded.recv() => self.loaded(load),
                Some(Control::LoseAll(done)) = controls.recv(), if accepts => self.lose_all(done),
                Some(done) = parked.recv() => self.parked(done),
                count = inbox.recv_many(&mut envelopes, limits::COMMANDS_AT_ONCE), if accepts => {
                    self.stopping |= count == 0;
                    if starts_go {
                        starts.try_many(&mut envelopes, limits::STARTS_AT_LEAST);
                    }
                    self.fetch(envelopes.iter().map(|envelope| envelope.run));
                    self.accept_all(envelopes.drain(..));
                }
                count = starts.recv_many(&mut starting, limits::COMMANDS_AT_ONCE),
                    if accepts && starts_go => {
                    self.stopping |= count == 0;
                    self.accept_all(starting.drain(..));
                }
                () = shutdown.cancelled(), if !self.stopping => self.stopping = true,
                () = tokio::time::sleep(pause.unwrap_or_default()),
                    if pause.is_some() && accepts => self.fire_timers(),
                _ = self.parking.due(), if accepts => self.park(),
            }
            if !self.stopping && self.losing.is_none() {
                // However much else there is to do, what stops something has its turn.
                inbox.take_urgent(&mut envelopes, limits::URGENT_IN_A_ROW);
                self.accept_all(envelopes.drain(..));
            }
            self.shared.dispatcher.carry_out_all(&mut self.batch);
        }
    }

    /// Looks at runs that are about to be dealt with one by one. They lie apart, and are in no
    /// cache when there are many: so they are waited for together.
    fn fetch(&self, runs: impl Iterator<Item = RunId>) {
        let versions = runs.filter_map(|run| self.slots.get(&run)).map(|slot| match &slot.phase {
            Phase::Idle(state) | Phase::Heading(state) | Phase::Parking(state) => state.version(),
            Phase::Committing(flight) => flight.state.version(),
            Phase::Loading => 0,
        });
        std::hint::black_box(versions.fold(0, i64::wrapping_add));
    }

    /// Queues what came, then decides once for each run that it came for.
    fn accept_all(&mut self, envelopes: impl IntoIterator<Item = Envelope>) {
        let mut runs = Vec::new();
        for envelope in envelopes {
            let run = envelope.run;
            if self.accept(envelope) && runs.last() != Some(&run) {
                runs.push(run);
            }
        }
        for run in runs {
            self.pump(run);
        }
    }

    /// Gives whether the run is to be pumped.
    fn accept(&mut self, envelope: Envelope) -> bool {
        let run = envelope.run;
        if let Some(slot) = self.slots.get_mut(&run) {
            let mut envelope = envelope;
            if matches!(envelope.ask, Ask::TakeIn(_)) {
                if !matches!(slot.phase, Phase::Parking(_)) {
                    // It is in memory already, and that is what matters.
                    envelope.reply.done(run);
                    return false;
                }
                // It was parked and woke, and its parking is not answered yet: it stays.
                envelope.ask = Ask::Adopt;
            }
            if slot.queue.len() >= limits::COMMANDS_PER_RUN_MAX {
                let max = limits::COMMANDS_PER_RUN_MAX;
                let message = format!("{max} commands wait for the run already");
                envelope.reply.refuse(Error::Overloaded(message));
                return false;
            }
            slot.queue.push_back(envelope);
            return true;
        }
        match envelope.ask {
            Ask::Start(new) => {
                if self.slots.len() >= limits::RUNS_ACTIVE_MAX {
                    let max = limits::RUNS_ACTIVE_MAX;
                    let message = format!("{max} runs are under way already");
                    envelope.reply.refuse(Error::Overloaded(message));
                    return false;
                }
                let now = self.shared.clock.now();
                if !self.shared.lease.holds(now) {
                    let why = "this replica has lost its lease".to_owned();
                    envelope.reply.refuse(Error::Unavailable(why));
                    return false;
                }
                let owner = self.shared.owner();
                let mut head = Head::default();
                let decided = slot::decide_start(*new, envelope.reply, now, owner, &mut head);
                self.slots.insert(run, Slot { audit: Some(head), ..Slot::loading() });
                self.count_active();
                self.decided(run, decided);
            }
            Ask::TakeIn(state) => {
                let (ask, reply) = (Ask::Adopt, envelope.reply);
                let mut slot = Slot::loading();
                self.shared.keys.recall(run, state.wanted_keys());
                slot.has_read(state, self.shared.clock.now());
                slot.queue.push_back(Envelope { run, ask, reply });
                self.slots.insert(run, slot);
                self.count_active();
                return true;
            }
            ask => {
                let stuck = lock(&self.shared.stuck).get(&run).cloned();
                if let Some(why) = stuck {
                    envelope.reply.refuse(Error::Stuck(run, why));
                    return false;
                }
                let mut slot = Slot::loading();
                slot.queue.push_back(Envelope { ask, ..envelope });
                self.slots.insert(run, slot);
                self.count_active();
                self.load(run);
            }
        }
        false
    }

    /// Reads a run beside the loop, for as long as the store takes, or until it is known that
    /// another has it.
    pub(super) fn load(&self, run: RunId) {
        let shared = Arc::clone(&self.shared);
        let (loads, loading) = (self.loads.clone(), Arc::clone(&self.loading));
        tokio::spawn(async move {
            let mut pause = limits::STORE_RETRY_MIN;
            let found = loop {
                let permit = loading.acquire().await;
                match take_over(&shared, run).await {
                    Ok(Where::Here) => match shared.fold(run).await {
                        Err(Error::Unavailable(_)) => {}
                        Ok((_, state)) => break Found::State(Box::new(state)),
                        Err(error) => break Found::Not(error),
                    },
                    Ok(Where::There(owner)) => break Found::There(owner),
                    Ok(Where::Unknown) | Err(Error::Unavailable(_)) => {}
                    Err(error) => break Found::Not(error),
                }
                drop(permit);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::STORE_RETRY_MAX);
            };
            // With the loop gone nobody needs the run.
            drop(loads.send(Loaded { run, found }).await);
        });
    }

    fn loaded(&mut self, Loaded { run, found }: Loaded) {
        let Some(slot) = self.slots.get_mut(&run) else {
            return self.found_for_nobody(run, found);
        };
        if let Found::Head(head) = found {
            return self.headed(run, head);
        }
        if !matches!(slot.phase, Phase::Loading) {
            return;
        }
        match found {
            Found::Head(_) => {}
            Found::State(state) => {
                if std::mem::take(&mut slot.unsure) && state.phase() == engine::Phase::Ended {
                    // It was written that the run ended, and nobody was told.
                    self.shared.wake(run, state.version());
                    self.shared.ends.ended(&state);
                    self.effects.carry_out_end(&state);
                }
                let adopts =
                    slot.queue.front().is_some_and(|front| matches!(front.ask, Ask::Adopt));
                if state.phase() != engine::Phase::Ended && !adopts {
                    let reply = Reply::Nobody;
                    slot.queue.push_front(Envelope { run, ask: Ask::Adopt, reply });
                }
                // What was not written was not written to the audit log either.
                slot.audit = None;
                self.shared.keys.recall(run, state.wanted_keys());
                slot.has_read(state, self.shared.clock.now());
                self.pump(run);
            }
            Found::There(owner) => self.hand_over(run, owner),
            Found::Not(error) => {
                let starts = match error {
                    Error::NotFound(_) => slot::split_at_start(&mut slot.queue),
                    _ => Vec::new(),
                };
                if let Error::Stuck(_, why) = &error {
                    self.quarantine(run, why);
                }
                self.drop_slot(run, &error);
                // Its first start was lost; another came meanwhile.
                self.accept_all(starts);
            }
        }
    }

    /// A run was looked for, and is this process's since, while whoever asked for it lost all runs:
    /// it is kept, for nobody else would have it.
    fn found_for_nobody(&mut self, run: RunId, found: Found) {
        if let Found::State(state) = found
            && state.phase() != engine::Phase::Ended
            && self.losing.is_none()
            && !self.stopping
        {
            let ask = Ask::TakeIn(state);
            self.accept_all([Envelope { run, ask, reply: Reply::Nobody }]);
        }
    }

    /// Decides what waits for a run, unless a transition of it is in the commit.
    pub(super) fn pump(&mut self, run: RunId) {
        let Some(slot) = self.slots.get_mut(&run) else { return };
        if self.stopping || slot.queue.is_empty() {
            self.let_go_if_over(run);
            return;
        }
        if self.awaits_head(run) {
            return;
        }
        let Some(slot) = self.slots.get_mut(&run) else { return };
        match std::mem::replace(&mut slot.phase, Phase::Loading) {
            Phase::Idle(state) => {
                let now = self.shared.clock.now().after(slot.ahead);
                let identity = self.shared.identity();
                let Slot { queue, audit, .. } = slot;
                let decided = slot::decide(state, queue, now, identity, audit);
                self.decided(run, decided);
            }
            other => slot.phase = other,
        }
    }

    fn decided(&mut self, run: RunId, decided: Decided) {
        match decided {
            Decided::Nothing(state, effects) => {
                let effects = effects::by_clock(effects, self.ahead(run));
                self.effects.carry_out(&state, effects, &mut self.batch);
                self.arm(run, state.next_wakeup());
                if let Some(slot) = self.slots.get_mut(&run) {
                    slot.phase = Phase::Idle(state);
                    if !slot.queue.is_empty() {
                        return self.pump(run);
                    }
                }
                self.let_go_if_over(run);
            }
            Decided::Transition(flight, commit) => {
                let Some(slot) = self.slots.get_mut(&run) else { return };
                let urgent = flight.is_urgent();
                slot.phase = Phase::Committing(flight);
                self.in_commit += 1;
                if self.commits.try_send(urgent, commit).is_err() {
                    self.in_commit -= 1;
                    let error = Error::Overloaded("too many commits wait".to_owned());
                    self.give_up(run, &error);
                }
            }
            Decided::Stuck(why) => {
                self.quarantine(run, &why);
                self.drop_slot(run, &Error::Stuck(run, why));
            }
        }
    }

    fn committed(&mut self, run: RunId, outcome: Result<Outcome, Fault>) {
        self.in_commit -= 1;
        let Some(slot) = self.slots.get_mut(&run) else { return };
        let Phase::Committing(mut flight) = std::mem::replace(&mut slot.phase, Phase::Loading)
        else {
            return;
        };
        match outcome {
            Ok(Outcome::Committed) => self.durable(run, *flight),
            Ok(Outcome::Conflict) => {
                let first = flight.replies.iter().any(|reply| matches!(reply, Reply::Started(_)));
                if first {
                    for reply in flight.askers() {
                        match reply {
                            Reply::Started(_) => reply.done_before(run),
                            other => other.refuse(lost()),
                        }
                    }
                    // It may be this process's: taken over while this waited, and passed by then
                    // as one that is in memory.
                    return self.load(run);
                }
                tracing::warn!(%run, "another process has written to the run; it is read again");
                slot.unsure = true;
                refuse_all(flight.askers(), &lost());
                self.load(run);
            }
            Ok(Outcome::DuplicateRequest { run_id, body_hash }) => {
                let before = run_id.unwrap_or(run);
                self.started_before(*flight, before, body_hash);
                if before == run {
                    return self.load(run);
                }
                self.drop_slot(run, &Error::NotFound(run));
            }
            Ok(Outcome::Refused { reason }) => {
                self.quarantine(run, &reason);
                refuse_all(flight.askers(), &Error::Stuck(run, reason.clone()));
                self.drop_slot(run, &Error::Stuck(run, reason));
            }
            Err(Fault(why)) => {
                tracing::warn!(%run, %why, "a transition may be lost; the run is read again");
                let message = "it is not known whether it was carried out".to_owned();
                slot.unsure = true;
                refuse_all(flight.askers(), &Error::Unavailable(message));
                self.load(run);
            }
        }
    }

    fn started_before(&self, flight: Flight, before: RunId, body: engine::ContentHash) {
        let request = flight.request;
        for reply in flight.replies {
            let Reply::Started(to) = reply else { continue };
            let answer = match &request {
                Some((id, hash)) if *hash != body => Err(Error::RequestIdReused(id.clone())),
                _ => Ok(Started::Before(before)),
            };
            drop(to.send(answer));
        }
    }

    /// A transition is durable: now its effects may be carried out and its askers answered.
    fn durable(&mut self, run: RunId, flight: Flight) {
        let Flight { state, effects, replies, rejections, adopted, more, ended, asks, .. } = flight;
        if asks {
            self.shared.asked.notify_one();
        }
        #[cfg(feature = "testing")]
        crate::testing::failpoint::durable();
        self.shared.wake(run, state.version());
        let ahead = self.ahead(run);
        let effects = effects::by_clock(effects, ahead);
        let batch = &mut self.batch;
        replies.into_iter().for_each(|reply| reply.done_among_others(run, batch));
        rejections.into_iter().for_each(slot::Rejected::answer);
        if adopted {
            self.shared.dispatcher.carry_out_all(batch);
            self.effects.carry_out_adopted(&state, ahead, effects);
        } else {
            self.effects.carry_out(&state, effects, batch);
        }
        // One that was retried in the same transition goes on.
        if let Some(ending) = ended.filter(|_| state.phase() == engine::Phase::Ended) {
            self.shared.ends.ended(&state);
            self.count_ended(&state, ending);
        }
        self.arm(run, state.next_wakeup());
        let Some(slot) = self.slots.get_mut(&run) else { return };
        slot.phase = Phase::Idle(state);
        if more {
            let ask = Ask::Command(Box::new(Command::Tick));
            slot.queue.push_front(Envelope { run, ask, reply: Reply::Nobody });
        }
        self.pump(run);
    }

    fn ahead(&self, run: RunId) -> Duration {
        self.slots.get(&run).map_or(Duration::ZERO, |slot| slot.ahead)
    }

    /// Sets the time at which a run is looked at though nobody asks.
    fn arm(&mut self, run: RunId, timer: Option<Instant>) {
        let Some(slot) = self.slots.get_mut(&run) else { return };
        let timer = timer.map(|at| at.before(slot.ahead));
        if slot.timer == timer {
            return;
        }
        if let Some(old) = slot.timer {
            self.timers.remove(&(old, run));
        }
        if let Some(new) = timer {
            self.timers.insert((new, run));
        }
        slot.timer = timer;
    }

    fn fire_timers(&mut self) {
        let now = self.shared.clock.now();
        let mut due = Vec::new();
        while let Some(&(at, run)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, run));
            due.push(run);
        }
        for run in due {
            if let Some(slot) = self.slots.get_mut(&run) {
                slot.timer = None;
                let ask = Ask::Command(Box::new(Command::Tick));
                slot.queue.push_back(Envelope { run, ask, reply: Reply::Nobody });
                self.pump(run);
            }
        }
    }

    fn let_go_if_over(&mut self, run: RunId) {
        let over = self.slots.get(&run).is_some_and(|slot| {
            matches!(&slot.phase, Phase::Idle(state) if state.phase() == engine::Phase::Ended)
                && slot.queue.is_empty()
        });
        if over {
            self.remove_slot(run);
        }
    }

    /// Forgets a run whose transition could not even be handed on.
    fn give_up(&mut self, run: RunId, error: &Error) {
        if let Some(Slot { phase: Phase::Committing(flight), .. }) = self.slots.get_mut(&run) {
            refuse_all(flight.askers(), error);
        }
        self.drop_slot(run, error);
    }

    /// Another has the run: what waits for it is passed on, what was done for it is forgotten.
    fn hand_over(&mut self, run: RunId, owner: OwnerId) {
        let Some(slot) = self.remove_slot(run) else { return };
        self.shared.dispatcher.forget_run(run);
        for envelope in slot.queue {
            match envelope.reply {
                Reply::Passed(_) => envelope.reply.refuse(Error::Elsewhere(run)),
                _ => self.runs.pass_on(envelope, owner),
            }
        }
    }

    /// All runs are another's.
    fn lose_all(&mut self, done: oneshot::Sender<()>) {
        let mut runs: Vec<RunId> = self.slots.keys().copied().collect();
        runs.sort_unstable();
        for run in runs {
            if let Some(Slot { phase: Phase::Committing(flight), .. }) = self.slots.get_mut(&run) {
                refuse_all(flight.askers(), &lost());
            }
            self.drop_slot(run, &lost());
        }
        lock(&self.shared.stuck).clear();
        self.effects.forget_children();
        self.losing = Some(done);
    }

    /// Outcomes of before must not be taken for those of runs that come back.
    fn lost_if_settled(&mut self) {
        if self.in_commit == 0
            && let Some(done) = self.losing.take()
        {
            // Whoever waited may be gone.
            let _ = done.send(());
        }
    }

    fn drop_slot(&mut self, run: RunId, error: &Error) {
        if let Some(slot) = self.remove_slot(run) {
            refuse_all(slot.queue.into_iter().map(|envelope| envelope.reply), error);
        }
    }

    pub(super) fn remove_slot(&mut self, run: RunId) -> Option<Slot> {
        let slot = self.slots.remove(&run)?;
        self.shared.keys.forget_run(run);
        if let Some(at) = slot.timer {
            self.timers.remove(&(at, run));
        }
        self.shared.ends.lost(run);
        self.shared.wake_lost(run);
        self.count_active();
        Some(slot)
    }

    fn quarantine(&self, run: RunId, why: &str) {
        tracing::error!(%run, %why, "the run is stuck");
        let mut stuck = lock(&self.shared.stuck);
        if stuck.len() < limits::RUNS_ACTIVE_MAX {
            stuck.insert(run, why.to_owned());
        }
    }

    fn count_active(&mut self) {
        self.parking.note(self.slots.len());
        self.shared.active.store(self.slots.len(), Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.telemetry.active.set(self.slots.len() as f64);
    }

    fn count_ended(&self, state: &State, ending: Ending) {
        let counter = match ending {
            Ending::Success => &self.telemetry.success,
            Ending::Failure => &self.telemetry.failure,
            Ending::Cancelled => &self.telemetry.cancelled,
            Ending::RolledBack => &self.telemetry.rolled_back,
        };
        counter.increment(1);
        let duration = state.ended_at().unwrap_or_default().since(state.started_at()).as_secs_f64();
        self.telemetry.duration.record(duration);
    }
}
