//! One life: a store, replicas one after another, agents and clients, faults for a while and then
//! none, until everything has come to its end.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::event::{UndoDecision, WaitingFor};
use engine::{Command, Phase, RunId, RunStatus, State, Waiting};
use store::testing::memory::Memory;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::client;
use crate::conditions::{Plan, Several};
use crate::history::History;
use crate::network::Network;
use crate::oracle;
use crate::random::Random;
use crate::replica::Replica;
use crate::workload::{self, Definition};

/// How long everything may take to come to its end once there are no faults any more. Retries,
/// time-outs and answers of people take minutes; hours mean that something is stuck.
const QUIET_WITHIN: Duration = Duration::from_secs(2 * 3600);
/// How many events of a run are shown that does not end.
const JOURNAL_SHOWN: u32 = 200;
/// How often people look at what waits for them.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The kind of row of a key that is held or waited for; one of a rate limit stays for a while.
const KEY_OF_CONCURRENCY: i16 = 1;

thread_local! {
    static ORIGIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Virtual time since the life began.
pub(crate) fn elapsed() -> Duration {
    ORIGIN.get().map_or(Duration::ZERO, |origin| origin.elapsed())
}

/// Whether there are faults, and whether the store can be reached. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    calm: Arc<AtomicBool>,
    out: Arc<AtomicBool>,
}

impl Weather {
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed) && !self.is_calm()
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) memory: Memory,
    pub(crate) history: History,
    pub(crate) weather: Weather,
    pub(crate) definitions: Vec<Definition>,
    replicas: Mutex<Vec<Option<Arc<Replica>>>>,
    /// Pairs of slots that do not reach one another.
    parted: Mutex<BTreeSet<(usize, usize)>>,
    /// How many tasks each agent has.
    busy: Mutex<BTreeMap<String, usize>>,
    problems: Mutex<Vec<String>>,
}

/// What came of a life that went well.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) fingerprint: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// How many runs ended how.
    pub(crate) ends: BTreeMap<&'static str, u64>,
    pub(crate) time: Duration,
}

impl World {
    /// Lives a life; the error says what went wrong.
    pub(crate) async fn live(plan: Plan, mut random: Random) -> Result<Life, String> {
        let begun = Instant::now();
        ORIGIN.set(Some(begun));
        let slots = plan.several.map_or(1, |several| several.replicas);
        let world = Arc::new(Self {
            plan,
            memory: Memory::new(),
            history: History::default(),
            weather: Weather::default(),
            definitions: workload::definitions(&mut random),
            replicas: Mutex::new(vec![None; slots]),
            parted: Mutex::default(),
            busy: Mutex::default(),
            problems: Mutex::default(),
        });
        let store = world.memory.open();
        for definition in &world.definitions {
            let kept = store.put_definition(definition.hash, &definition.yaml).await;
            kept.map_err(|error| error.to_string())?;
        }
        match world.plan.several {
            None => drop(tokio::spawn(Arc::clone(&world).keep_replica(random.fork()))),
            Some(several) => {
                for slot in 0..several.replicas {
                    let keep = Arc::clone(&world).keep_slot(slot, several, random.fork());
                    tokio::spawn(keep);
                }
            }
        }
        tokio::spawn(Arc::clone(&world).keep_outages(random.fork()));
        tokio::spawn(Arc::clone(&world).count_lines());
        for number in 0..world.plan.agents {
            tokio::spawn(Arc::clone(&world).keep_agent(number, random.fork()));
        }
        let clients: Vec<_> = (0..world.plan.clients)
            .map(|number| tokio::spawn(client::live(Arc::clone(&world), number, random.fork())))
            .collect();
        tokio::time::sleep(world.plan.chaos).await;
        world.history.trace(|| "calm".to_owned());
        world.weather.calm.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.map_err(|error| error.to_string())?;
        }
        let quiet = tokio::time::timeout(QUIET_WITHIN, world.quiet(random.fork())).await;
        if quiet.is_err() {
            return Err(format!("it does not come to its end\n{}", world.unfinished().await));
        }
        let ends = oracle::check(&world).await?;
        let problems = world.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        let seen = world.history.seen();
        let (fingerprint, mut faults) = (seen.fingerprint(), seen.faults.clone());
        let figures = world.memory.figures();
        let parked = [
            ("parent parked", figures.parents_parked),
            ("parent woken untold", figures.parents_woken),
        ];
        faults.extend(parked.into_iter().filter(|(_, count)| *count > 0));
        Ok(Life { fingerprint, faults, ends, time: begun.elapsed() })
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Option<Arc<Replica>>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_replica(&self, slot: usize, replica: Option<Arc<Replica>>) {
        self.slots()[slot] = replica;
    }

    pub(crate) fn replica_at(&self, slot: usize) -> Option<Arc<Replica>> {
        self.slots().get(slot)?.clone()
    }

    /// All that are there.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        self.slots().iter().flatten().cloned().collect()
    }

    /// One that is asked; `None` when nobody is there.
    pub(crate) fn some_replica(&self, random: &mut Random) -> Option<Arc<Replica>> {
        let replicas = self.replicas();
        match replicas.len() {
            0 | 1 => replicas.first().cloned(),
            _ => Some(Arc::clone(random.pick(&replicas))),
        }
    }

    /// Whether two machines do not reach one another.
    pub(crate) fn is_parted(&self, one: usize, other: usize) -> bool {
        let pair = (one.min(other), one.max(other));
        self.parted.lock().unwrap_or_else(PoisonError::into_inner).contains(&pair)
    }

    fn set_parted(&self, one: usize, other: usize, parted: bool) {
        let pair = (one.min(other), one.max(other));
        let mut all = self.parted.lock().unwrap_or_else(PoisonError::into_inner);
        match parted {
            true => all.insert(pair),
            false => all.remove(&pair),
        };
    }

    pub(crate) fn network(&self) -> Network {
        Network {
            faults: self.plan.network,
            weather: self.weather.clone(),
            history: self.history.clone(),
        }
    }

    /// Something that must not happen has happened.
    pub(crate) fn problem(&self, what: String) {
        self.history.trace(|| format!("problem: {what}"));
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub(crate) fn set_busy(&self, agent: &str, tasks: usize) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(agent.to_owned(), tasks);
    }

    fn has_busy_agent(&self) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.values().any(|tasks| *tasks > 0)
    }

    /// One life of a replica after another.
    async fn keep_replica(self: Arc<Self>, mut random: Random) {
        for number in 1.. {
            let replica = Replica::start(&self, number, random.fork()).await;
            self.history.trace(|| format!("replica {number} starts"));
            self.set_replica(0, Some(Arc::clone(&replica)));
            let Some(pause) = self.plan.replica_crashes else { return };
            let most = u64::try_from(pause.as_millis()).unwrap() * 2;
            tokio::time::sleep(random.millis(0, most)).await;
            if self.weather.is_calm() {
                return;
            }
            if random.one_in(3) {
                self.history.fault("replica cut off");
                replica.cut_off();
                let late = random.millis(0, 8_000);
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    replica.crash();
                });
            } else {
                self.history.fault("replica crash");
                replica.crash();
                self.set_replica(0, None);
                let down = random.millis(0, 4_000);
                tokio::time::sleep(down).await;
            }
        }
    }

    /// One of several replicas: a life after another, each with what befalls it.
    async fn keep_slot(self: Arc<Self>, slot: usize, several: Several, mut random: Random) {
        for life in 1.. {
            let fork = random.fork();
            let replica = Replica::start_among(&self, slot, several.skew, fork).await;
            self.history.trace(|| format!("replica {slot} starts its life {life}"));
            self.set_replica(slot, Some(Arc::clone(&replica)));
            if !self.befall(slot, &replica, several, &mut random).await {
                return;
            }
            self.set_replica(slot, None);
            // Shorter or longer than a lease.
            tokio::time::sleep(random.millis(0, 9_000)).await;
        }
    }

    /// What befalls a replica until it dies; false when there are no faults any more.
    async fn befall(
        &self,
        slot: usize,
        replica: &Replica,
        several: Several,
        random: &mut Random,
    ) -> bool {
        let most = u64::try_from(several.pause.as_millis()).unwrap() * 2;
        loop {
            tokio::time::sleep(random.millis(0, most)).await;
            if self.weather.is_calm() {
                return false;
            }
            let for_a_while = random.millis(100, 15_000);
            match random.below(5) {
                0 if several.dies => {
                    self.history.fault("replica crash");
                    replica.crash();
                    return true;
                }
                1 if several.restarts => {
                    self.history.fault("replica restart");
                    replica.stop().await;
                    return true;
                }
                2 if several.stalls => {
                    self.history.fault("replica stall");
                    replica.fate.pause.begin();
                    tokio::time::sleep(for_a_while).await;
                    replica.fate.pause.end();
                }
                3 if several.away => {
                    self.history.fault("replica away from the store");
                    replica.fate.away.set(true);
                    tokio::time::sleep(for_a_while).await;
                    replica.fate.away.set(false);
                }
                4 if several.parted => {
                    self.history.fault("replicas parted");
                    let others = several.replicas as u64 - 1;
                    let step = 1 + usize::try_from(random.below(others)).unwrap();
                    let other = (slot + step) % several.replicas;
                    self.set_parted(slot, other, true);
                    tokio::time::sleep(for_a_while).await;
                    self.set_parted(slot, other, false);
                }
                _ => {}
            }
        }
    }

    async fn keep_agent(self: Arc<Self>, number: u64, mut random: Random) {
        let name = format!("agent-{number}");
        loop {
            Agent::live(Arc::clone(&self), name.clone(), random.fork()).await;
            self.set_busy(&name, 0);
            tokio::time::sleep(random.millis(0, 5_000)).await;
        }
    }

    async fn keep_outages(self: Arc<Self>, mut random: Random) {
        let Some(pause) = self.plan.store.outages else { return };
        let most = u64::try_from(pause.as_millis()).unwrap() * 2;
        while !self.weather.is_calm() {
            tokio::time::sleep(random.millis(0, most)).await;
            if self.weather.is_calm() {
                return;
            }
            self.history.fault("store outage");
            self.weather.out.store(true, Ordering::Relaxed);
            tokio::time::sleep(random.millis(100, 10_000)).await;
            self.weather.out.store(false, Ordering::Relaxed);
        }
    }

    /// Counts what waits in line for a key in nobody's memory: that it happens is to be seen.
    async fn count_lines(self: Arc<Self>) {
        let store = self.memory.open();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let rows = store.list_keys(None, 1000).await.unwrap_or_default();
            let lines = rows.iter().filter_map(|row| {
                let body: serde_json::Value = serde_json::from_slice(&row.body).ok()?;
                body["concurrency"]["waiting"].as_array().cloned()
            });
            let waiting = lines.flatten().filter_map(|waiting| {
                let run = waiting["holder"].as_str()?.split('#').next()?.parse();
                run.ok()
            });
            let waiting: Vec<RunId> = waiting.collect();
            for standing in store.standings(&waiting).await.unwrap_or_default() {
                if standing.owner.is_none() {
                    self.history.fault("parked in line");
                }
            }
        }
    }

    /// Waits until nothing is left to be done, while people answer what is asked of them.
    async fn quiet(&self, mut random: Random) {
        for round in 0.. {
            tokio::time::sleep(LOOK_EVERY).await;
            let states = self.open_runs().await;
            for state in &states {
                self.answer(state, round, &mut random).await;
            }
            let idle = self.slots().iter().all(|slot| slot.as_ref().is_some_and(|it| it.is_idle()));
            // What a run leaves behind that ended in the middle of a fault is found in time.
            let held = self.memory.open().list_keys(None, 1000).await.unwrap_or_default();
            let held = held.iter().any(|row| row.kind == KEY_OF_CONCURRENCY);
            if states.is_empty() && idle && !held && !self.has_busy_agent() {
                return;
            }
        }
    }

    /// Does what a person would do about a run that waits for one.
    async fn answer(&self, state: &State, round: u64, random: &mut Random) {
        let run = state.id();
        let origin = engine::event::Origin::default();
        let mut commands = Vec::new();
        if state.status() == RunStatus::Paused {
            commands.push(Command::Resume { origin: origin.clone() });
        }
        // One may have waited too long for an agent by the clock of whoever took its run over.
        let undos = state.rollbacks().into_iter().flat_map(|rollback| rollback.undos);
        for undo in undos.filter(|undo| undo.status == "stuck") {
            let (path, origin) = (undo.path.to_string(), origin.clone());
            let (decision, comment) = (UndoDecision::Retry, String::new());
            commands.push(Command::DecideUndo { path, decision, comment, origin });
        }
        for step in state.steps() {
            let path = step.path.to_string();
            match step.waiting {
                Some(Waiting::For(WaitingFor::Decision(_), _)) => {
                    let (comment, origin) = (String::new(), origin.clone());
                    commands.push(Command::Decide {
                        path,
                        approve: true,
                        comment,
                        amendment: None,
                        origin,
                    });
                }
                Some(Waiting::For(WaitingFor::Signal(signal), _)) => {
                    let (payload, origin) = ("{}".into(), origin.clone());
                    commands.push(Command::Signal { signal, payload, origin });
                }
                _ => {}
            }
        }
        for (n, command) in commands.into_iter().enumerate() {
            let request = format!("person-{round}-{run}-{n}");
            client::persist(self, run, &request, command, random).await;
        }
    }

    async fn open_runs(&self) -> Vec<State> {
        let store = self.memory.open();
        let rows = store.unfinished(None, 1000).await.unwrap_or_default();
        let mut states = Vec::new();
        for row in rows {
            match self.fold(row.run_id).await {
                Ok(state) => states.push(state),
                Err(why) => self.problem(why),
            }
        }
        states
    }

    /// A run as its journal tells it.
    pub(crate) async fn fold(&self, run: RunId) -> Result<State, String> {
        let store = self.memory.open();
        let found = store.fold(run).await.map_err(|error| error.to_string())?;
        let (row, journal) = found.ok_or_else(|| format!("run {run} is lost"))?;
        let yaml =
            store.definition(row.definition_hash).await.map_err(|error| error.to_string())?;
        let yaml = yaml.ok_or_else(|| format!("the definition of {run} is lost"))?;
        let compiled = engine::definition::compile("kept.yml", yaml.as_bytes());
        let (graph, _) = compiled.map_err(|wrong| format!("{wrong:?}"))?;
        control_plane::runs::fold(run, Arc::new(graph), &journal)
    }

    /// What is not over, for people.
    async fn unfinished(&self) -> String {
        let mut lines = Vec::new();
        for state in self.open_runs().await {
            let run = state.id();
            let name = &state.started().workflow;
            let row = self.memory.open().run(run).await.ok().flatten();
            let owner = row.and_then(|row| row.owner);
            let status = state.status().word();
            lines.push(format!("run {run} of `{name}` is {status}, of {owner:?}"));
            for step in state.steps() {
                let waits = &step.waiting;
                lines.push(format!("  {} {} waits: {waits:?}", step.path, step.status));
                for replica in self.replicas() {
                    if let Some(Waiting::Agent(key)) = waits {
                        lines.push(format!("    {:?}", replica.dispatcher.why(key)));
                    }
                }
            }
            if state.phase() == Phase::Ended {
                lines.push("  it has ended, its row does not say so".to_owned());
            }
            lines.extend(self.history.seen().recent(&run.to_string()));
            let journal = self.memory.open().journal(run, 0, JOURNAL_SHOWN).await;
            for event in journal.into_iter().flatten() {
                let body = String::from_utf8_lossy(&event.body);
                lines.push(format!("  {} {} {} {body}", event.seq, event.at, event.kind));
            }
        }
        for row in self.memory.open().list_keys(None, 1000).await.unwrap_or_default() {
            let body = String::from_utf8_lossy(&row.body);
            lines.push(format!("key {} of kind {}: {body}", row.key, row.kind));
        }
        let wakes = self.memory.open().next_wake().await;
        lines.push(format!("the first parked run wakes at {wakes:?}"));
        for replica in self.replicas() {
            let (active, counts) = (replica.runs.active(), replica.dispatcher.counts());
            let owner = replica.runs.identity().owner;
            lines.push(format!("{owner}: active {active}, {counts:?}, agents {:?}", self.busy));
        }
        lines.join("\n")
    }
}
