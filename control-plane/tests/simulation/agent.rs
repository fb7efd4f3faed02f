//! An agent as the description of the protocol says one behaves, with work that takes virtual
//! time. It may die, stand still and lose its connection at any moment; what it did and was told
//! stands in the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::v1::connect_request::Frame;
use contracts::v1::{self, ConnectRequest, connect_response, task_result};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::history::Acknowledged;
use crate::network::Link;
use crate::random::Random;
use crate::work;
use crate::world::World;

/// How often it looks at its clocks.
const TICK: Duration = Duration::from_millis(500);
/// How long a cancelled task takes to stop at most, in milliseconds.
const STOP_MILLIS: u64 = 3_000;

pub(crate) struct Agent {
    world: Arc<World>,
    name: String,
    random: Random,
    tasks: BTreeMap<String, Held>,
    link: Option<Link>,
    registered: bool,
    token: String,
    heard: Instant,
    pinged: Instant,
    clocks: Clocks,
    connect_at: Instant,
    events: mpsc::UnboundedSender<Event>,
    numbers: u64,
}

/// What the control plane said on registering.
struct Clocks {
    ping_timeout: Duration,
    accept: Duration,
}

struct Held {
    lease: String,
    attempt: i32,
    number: u64,
    stage: Stage,
    stopped: bool,
    /// How many answers to come are about an earlier attempt.
    stale_answers: u32,
    task: v1::Task,
}

enum Stage {
    /// It may not begin before it is told to.
    Waiting,
    Running,
    /// Its result is not acknowledged yet.
    Done {
        result: Box<task_result::Outcome>,
        sent: Option<Instant>,
    },
}

/// What comes from within.
enum Event {
    Worked {
        id: String,
        number: u64,
        outcome: Box<task_result::Outcome>,
    },
    /// `Proceed` did not come.
    NotTold {
        id: String,
        number: u64,
    },
}

impl Agent {
    /// Lives until it dies, and forgets everything then.
    pub(crate) async fn live(world: Arc<World>, name: String, mut random: Random) {
        let (events, mut inner) = mpsc::unbounded_channel();
        let now = Instant::now();
        let mut agent = Self {
            world: Arc::clone(&world),
            name,
            tasks: BTreeMap::new(),
            link: None,
            registered: false,
            token: String::new(),
            heard: now,
            pinged: now,
            clocks: Clocks { ping_timeout: Duration::from_secs(3), accept: Duration::from_secs(5) },
            connect_at: now,
            events,
            numbers: 0,
            random: random.fork(),
        };
        let dies = world.plan.agent_crashes.map(|pause| random.millis(0, twice(pause)));
        let mut stalls = world.plan.agent_stalls.map(|pause| now + random.millis(0, twice(pause)));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(event) = inner.recv() => agent.take(event),
                frame = receive(&mut agent.link) => match frame {
                    Some(frame) => agent.hear(frame),
                    None => agent.lose_link(),
                },
                _ = tick.tick() => agent.tick().await,
            }
            if world.weather.is_calm() {
                continue;
            }
            if dies.is_some_and(|after| now.elapsed() >= after) {
                world.history.fault("agent crash");
                return;
            }
            if stalls.is_some_and(|at| Instant::now() >= at) {
                world.history.fault("agent stall");
                tokio::time::sleep(random.millis(500, 25_000)).await;
                stalls = world
                    .plan
                    .agent_stalls
                    .map(|pause| Instant::now() + random.millis(0, twice(pause)));
            }
        }
    }

    fn send(&mut self, frame: Frame) {
        if let Some(link) = &mut self.link {
            link.send(ConnectRequest { frame: Some(frame) });
        }
    }

    fn lose_link(&mut self) {
        self.link = None;
        self.registered = false;
        self.connect_at = Instant::now() + self.random.millis(10, 1_000);
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        self.world.set_busy(&self.name, self.tasks.len());
        if self.link.is_none() {
            if now >= self.connect_at {
                self.connect().await;
            }
            return;
        }
        let busy = !self.tasks.is_empty();
        let silence = now.saturating_duration_since(self.heard);
        let unanswered = self.pinged > self.heard && now - self.pinged > self.clocks.ping_timeout;
        if unanswered || (busy && silence > self.clocks.ping_timeout) {
            return self.lose_link();
        }
        let every = if busy { Duration::from_secs(1) } else { Duration::from_secs(20) };
        if self.registered && now.saturating_duration_since(self.pinged) >= every {
            // What was asked before counts from when it was asked first.
            if self.pinged <= self.heard {
                self.pinged = now;
            }
            self.send(Frame::Ping(v1::Ping { nonce: 1 }));
            if busy {
                self.remind(now);
            }
        }
    }

    /// Says what it has, and sends again what was not acknowledged.
    fn remind(&mut self, now: Instant) {
        let tasks = self.tasks.iter().map(|(id, held)| held.task_ref(id)).collect();
        self.send(Frame::Status(v1::Status { tasks }));
        let again = self.clocks.accept;
        let late = |held: &Held| {
            let Stage::Done { sent: Some(sent), .. } = &held.stage else { return false };
            now - *sent > again
        };
        let ids: Vec<String> =
            self.tasks.iter().filter(|(_, held)| late(held)).map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| self.send_result(id));
    }

    async fn connect(&mut self) {
        let tasks = self.tasks.iter().map(|(id, held)| held.task_ref(id)).collect();
        let register = v1::Register {
            session_token: self.token.clone(),
            tasks_in_flight: tasks,
            ..work::register(&self.name, self.world.plan.slots)
        };
        let Some(replica) = self.world.some_replica(&mut self.random) else {
            return self.lose_link();
        };
        let random = self.random.fork();
        self.heard = Instant::now();
        self.pinged = self.heard;
        self.registered = false;
        self.link = self.world.network().connect(&replica, register, random).await;
        if self.link.is_none() {
            self.lose_link();
        }
    }

    fn hear(&mut self, response: v1::ConnectResponse) {
        use connect_response::Frame as Told;
        self.heard = Instant::now();
        match response.frame {
            Some(Told::Registered(registered)) => self.hear_registered(&registered),
            Some(Told::Assign(assign)) => {
                assign.tasks.into_iter().for_each(|task| self.assign(task));
            }
            Some(Told::Proceed(proceed)) => {
                let id = proceed.task.unwrap_or_default().task_id;
                if let Some(held) = self.tasks.get(&id)
                    && matches!(held.stage, Stage::Waiting)
                {
                    self.begin(&id);
                }
            }
            Some(Told::Cancel(cancel)) => self.cancel(&cancel.task.unwrap_or_default().task_id),
            Some(Told::ResultsAck(acks)) => acks.acks.iter().for_each(|ack| self.acknowledge(ack)),
            Some(Told::LeaseLost(lost)) => self.hear_lost(&lost.task_id),
            Some(Told::Rebalance(_)) => self.lose_link(),
            Some(Told::Ping(ping)) => self.send(Frame::Pong(v1::Pong { nonce: ping.nonce })),
            _ => {}
        }
    }

    fn hear_registered(&mut self, registered: &v1::Registered) {
        self.registered = true;
        self.token.clone_from(&registered.session_token);
        let seconds = |given: &Option<prost_types::Duration>, usual: Duration| {
            given.and_then(|given| Duration::try_from(given).ok()).unwrap_or(usual)
        };
        self.clocks.ping_timeout = seconds(&registered.ping_timeout, self.clocks.ping_timeout);
        self.clocks.accept = seconds(&registered.accept_timeout, self.clocks.accept);
        for held in self.tasks.values_mut() {
            held.stale_answers = 0;
        }
        for kept in &registered.tasks_kept {
            if let Some(held) = self.tasks.get_mut(&kept.task_id) {
                held.lease.clone_from(&kept.lease_token);
            }
        }
        let kept = |id: &String| registered.tasks_kept.iter().any(|kept| kept.task_id == *id);
        let lost: Vec<String> = self.tasks.keys().filter(|id| !kept(id)).cloned().collect();
        lost.iter().for_each(|id| self.drop_task(id));
        let ids: Vec<String> = self.tasks.keys().cloned().collect();
        ids.iter().for_each(|id| self.tell(id));
    }

    /// Says how a task stands.
    fn tell(&mut self, id: &str) {
        let Some(held) = self.tasks.get(id) else { return };
        if matches!(held.stage, Stage::Done { .. }) {
            return self.send_result(id);
        }
        let task = Some(held.task_ref(id));
        self.send(Frame::Accepted(v1::Accepted { task }));
    }

    fn assign(&mut self, task: v1::Task) {
        let reference = task.r#ref.clone().unwrap_or_default();
        let id = reference.task_id.clone();
        let mut stale_answers = 0;
        if let Some(held) = self.tasks.get_mut(&id) {
            if held.attempt == task.attempt && !held.stopped {
                held.lease = reference.lease_token;
                return self.tell(&id);
            }
            let sent = matches!(held.stage, Stage::Done { sent: Some(_), .. });
            stale_answers = held.stale_answers + u32::from(sent);
            let old = held.task_ref(&id);
            self.tasks.remove(&id);
            self.release(old);
        }
        let busy = self.tasks.values().filter(|held| !matches!(held.stage, Stage::Done { .. }));
        if busy.count() >= usize::try_from(self.world.plan.slots).unwrap() {
            return self.release(reference);
        }
        self.numbers += 1;
        let (number, attempt) = (self.numbers, task.attempt);
        let waits = task.await_proceed;
        let lease = reference.lease_token.clone();
        let stage = Stage::Waiting;
        let held = Held { lease, attempt, number, stage, stopped: false, stale_answers, task };
        self.tasks.insert(id.clone(), held);
        self.send(Frame::Accepted(v1::Accepted { task: Some(reference) }));
        if waits {
            let (events, accept) = (self.events.clone(), self.clocks.accept);
            tokio::spawn(async move {
                tokio::time::sleep(accept).await;
                drop(events.send(Event::NotTold { id, number }));
            });
        } else {
            self.begin(&id);
        }
    }

    fn release(&mut self, task: v1::TaskRef) {
        let release = v1::Release { task: Some(task), reason: "no room".to_owned() };
        self.send(Frame::Release(release));
    }

    /// The work begins: from here on it has an effect.
    fn begin(&mut self, id: &str) {
        let Some(held) = self.tasks.get_mut(id) else { return };
        held.stage = Stage::Running;
        let (number, attempt) = (held.number, held.attempt);
        let name = &self.name;
        self.world.history.trace(|| format!("{name} begins {id} attempt {attempt}"));
        let mut seen = self.world.history.seen();
        let executions = seen.executions.entry((id.to_owned(), attempt)).or_default();
        executions.begun += 1;
        executions.at_most_once |= held.task.await_proceed;
        drop(seen);
        let (outcome, time) = work::perform(&held.task, &self.world, &mut self.random);
        let (events, id) = (self.events.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            drop(events.send(Event::Worked { id, number, outcome: Box::new(outcome) }));
        });
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Worked { id, number, outcome } => {
                let Some(held) = self.tasks.get_mut(&id) else { return };
                if held.number != number || !matches!(held.stage, Stage::Running) {
                    return;
                }
                if matches!(*outcome, task_result::Outcome::Success(_)) {
                    let key = (id.clone(), held.attempt);
                    let mut seen = self.world.history.seen();
                    seen.executions.entry(key).or_default().succeeded += 1;
                }
                held.stage = Stage::Done { result: outcome, sent: None };
                self.send_result(&id);
            }
            Event::NotTold { id, number } => {
                let Some(held) = self.tasks.get(&id) else { return };
                if held.number == number && matches!(held.stage, Stage::Waiting) {
                    let task = held.task_ref(&id);
                    self.tasks.remove(&id);
                    self.release(task);
                }
            }
        }
    }

    fn send_result(&mut self, id: &str) {
        if !self.registered {
            return;
        }
        let Some(held) = self.tasks.get_mut(id) else { return };
        let task = Some(held.task_ref(id));
        let Stage::Done { result, sent } = &mut held.stage else { return };
        *sent = Some(Instant::now());
        let outcome = Some(task_result::Outcome::clone(result));
        let result = v1::TaskResult { task, outcome, usage: None };
        self.send(Frame::Results(v1::Results { results: vec![result] }));
    }

    fn cancel(&mut self, id: &str) {
        let Some(held) = self.tasks.get_mut(id) else { return };
        let cancelled =
            task_result::Outcome::Cancelled(v1::TaskCancelled { message: String::new() });
        match held.stage {
            Stage::Done { .. } => {}
            Stage::Waiting => {
                held.stopped = true;
                held.stage = Stage::Done { result: Box::new(cancelled), sent: None };
                self.send_result(id);
            }
            Stage::Running => {
                held.stopped = true;
                let (events, id, number) = (self.events.clone(), id.to_owned(), held.number);
                // The work may come to its end before.
                let time = self.random.millis(0, STOP_MILLIS);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    drop(events.send(Event::Worked { id, number, outcome: Box::new(cancelled) }));
                });
            }
        }
    }

    fn acknowledge(&mut self, ack: &v1::ResultAck) {
        if self.is_stale(&ack.task_id) {
            return;
        }
        let Some(held) = self.tasks.get(&ack.task_id) else { return };
        let Stage::Done { result, .. } = &held.stage else { return };
        let acknowledged = Acknowledged {
            attempt: held.attempt,
            success: matches!(**result, task_result::Outcome::Success(_)),
            duplicate: ack.duplicate,
        };
        self.tasks.remove(&ack.task_id);
        let (name, id) = (&self.name, &ack.task_id);
        self.world.history.trace(|| format!("{name} is told that {id} is durable"));
        let mut seen = self.world.history.seen();
        seen.acknowledged.entry(ack.task_id.clone()).or_default().push(acknowledged);
    }

    fn is_stale(&mut self, id: &str) -> bool {
        let Some(held) = self.tasks.get_mut(id) else { return false };
        let stale = held.stale_answers > 0;
        held.stale_answers = held.stale_answers.saturating_sub(1);
        stale
    }

    fn hear_lost(&mut self, id: &str) {
        if !self.is_stale(id) {
            self.drop_task(id);
        }
    }

    /// The task is another's; what it does goes on unheard.
    fn drop_task(&mut self, id: &str) {
        self.tasks.remove(id);
    }
}

impl Held {
    fn task_ref(&self, id: &str) -> v1::TaskRef {
        v1::TaskRef { task_id: id.to_owned(), lease_token: self.lease.clone() }
    }
}

async fn receive(link: &mut Option<Link>) -> Option<v1::ConnectResponse> {
    match link {
        Some(link) => link.receive().await,
        None => std::future::pending().await,
    }
}

/// Milliseconds between things that happen so often on average.
fn twice(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap() * 2
}
