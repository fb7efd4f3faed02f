//! Random lives: whatever happens in whatever order, credits are kept and no order is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contracts::v1;
use engine::task::{Delivery, FailureKind, TaskKey, TaskOrder, TaskOutcome};
use proptest::prelude::*;

use super::super::super::lease::LeaseToken;
use super::super::super::report::{ReportAck, Subject};
use super::super::super::session::{AgentVerdict, Incoming, Outgoing, SessionId};
use super::super::State;
use super::world::{World, failure, key, order, register, run};

const AGENTS: usize = 3;
const TASKS: u32 = 12;

#[derive(Clone, Debug)]
enum Step {
    Submit { task: u32, at_most_once: bool, timeout: bool },
    Expect { task: u32 },
    Connect { agent: usize, slots: i32, names_tasks: bool },
    Disconnect { agent: usize },
    Credits { agent: usize, total: u32 },
    Accept { agent: usize, which: usize },
    Result { agent: usize, which: usize, verdict: u8 },
    Release { agent: usize, which: usize },
    StaleResult { agent: usize, which: usize },
    Status { agent: usize },
    Cancel { task: u32 },
    Hold { hold: bool },
    Answer { ack: Option<bool> },
    Drain { agent: usize },
    Pass { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..AGENTS;
    let which = 0..8_usize;
    prop_oneof![
        6 => (0..TASKS, any::<bool>(), any::<bool>()).prop_map(|(task, at_most_once, timeout)| {
            Step::Submit { task, at_most_once, timeout }
        }),
        1 => (0..TASKS).prop_map(|task| Step::Expect { task }),
        3 => (agent.clone(), 1..4_i32, any::<bool>()).prop_map(|(agent, slots, names_tasks)| {
            Step::Connect { agent, slots, names_tasks }
        }),
        1 => agent.clone().prop_map(|agent| Step::Disconnect { agent }),
        2 => (agent.clone(), 0..4_u32).prop_map(|(agent, total)| Step::Credits { agent, total }),
        5 => (agent.clone(), which.clone()).prop_map(|(agent, which)| {
            Step::Accept { agent, which }
        }),
        5 => (agent.clone(), which.clone(), 0..4_u8).prop_map(|(agent, which, verdict)| {
            Step::Result { agent, which, verdict }
        }),
        1 => (agent.clone(), which.clone()).prop_map(|(agent, which)| {
            Step::Release { agent, which }
        }),
        1 => (agent.clone(), which).prop_map(|(agent, which)| {
            Step::StaleResult { agent, which }
        }),
        2 => agent.clone().prop_map(|agent| Step::Status { agent }),
        1 => (0..TASKS).prop_map(|task| Step::Cancel { task }),
        1 => any::<bool>().prop_map(|hold| Step::Hold { hold }),
        4 => prop_oneof![Just(Some(true)), Just(Some(true)), Just(Some(false)), Just(None)]
            .prop_map(|ack| Step::Answer { ack }),
        1 => agent.prop_map(|agent| Step::Drain { agent }),
        3 => prop_oneof![0..900_u64, 1_000..20_000_u64].prop_map(|millis| Step::Pass { millis }),
    ]
}

/// What an agent believes it has.
#[derive(Default)]
struct Peer {
    session: Option<SessionId>,
    tasks: Vec<(TaskKey, LeaseToken)>,
    stale: Vec<(TaskKey, LeaseToken)>,
}

struct Life {
    world: World,
    peers: Vec<Peer>,
    /// Orders that were given and whose end was not yet acknowledged.
    open: BTreeSet<TaskKey>,
    started: BTreeMap<TaskKey, u32>,
}

impl Life {
    fn new() -> Self {
        let peers = (0..AGENTS).map(|_| Peer::default()).collect();
        let (open, started) = (BTreeSet::new(), BTreeMap::new());
        Self { world: World::new(), peers, open, started }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { task, at_most_once, timeout } => {
                if self.open.insert(key("w", task)) {
                    self.world.submit(TaskOrder {
                        delivery: delivery(at_most_once),
                        timeout: timeout.then_some(Duration::from_secs(4)),
                        queued_at: self.world.now,
                        ..order("w", task)
                    });
                }
            }
            Step::Expect { task } => {
                if self.open.insert(key("w", task)) {
                    let order =
                        TaskOrder { epoch: 2, queued_at: self.world.now, ..order("w", task) };
                    self.world.act(|matcher| matcher.expect(order, Duration::from_secs(3)));
                }
            }
            Step::Connect { agent, slots, names_tasks } => self.connect(agent, slots, names_tasks),
            Step::Disconnect { agent } => {
                if let Some(session) = self.peers[agent].session.take() {
                    self.world.gone(session);
                }
            }
            Step::Credits { agent, total } => {
                self.say(agent, |_| Some(Incoming::Credits { total, per_action: Vec::new() }));
            }
            Step::Accept { agent, which } => self.say(agent, |peer| {
                let (key, lease) = *peer.tasks.get(which)?;
                Some(Incoming::Accepted(key, lease))
            }),
            Step::Result { agent, which, verdict } => self.result(agent, which, verdict),
            Step::StaleResult { agent, which } => {
                let peer = &self.peers[agent];
                if let (Some(session), Some(task)) = (peer.session, peer.stale.get(which)) {
                    self.world.succeed(session, *task);
                }
            }
            Step::Release { agent, which } => self.say(agent, |peer| {
                if which >= peer.tasks.len() {
                    return None;
                }
                let (key, lease) = peer.tasks.remove(which);
                Some(Incoming::Release { key, lease, reason: String::new() })
            }),
            Step::Status { agent } => {
                self.say(agent, |peer| Some(Incoming::Status(peer.tasks.clone())));
            }
            Step::Cancel { task } => {
                let known = self.open.contains(&key("w", task));
                if known {
                    let grace = Duration::from_secs(2);
                    self.world.act(|matcher| matcher.cancel(key("w", task), "", grace));
                }
            }
            Step::Hold { hold } => self.world.act(|matcher| matcher.hold_run(run("w"), hold)),
            Step::Answer { ack } => self.answer(ack),
            Step::Drain { agent } => {
                self.say(agent, |_| Some(Incoming::DrainRequested { reason: String::new() }));
            }
            Step::Pass { millis } => self.world.pass(Duration::from_millis(millis)),
        }
        self.read();
        self.check();
    }

    fn say(&mut self, agent: usize, what: impl FnOnce(&mut Peer) -> Option<Incoming>) {
        let peer = &mut self.peers[agent];
        if let (Some(session), Some(frame)) = (peer.session, what(peer))
            && !self.world.hear(session, frame)
        {
            self.peers[agent].session = None;
        }
    }

    fn connect(&mut self, agent: usize, slots: i32, names_tasks: bool) {
        let peer = &mut self.peers[agent];
        if !names_tasks {
            let lost = std::mem::take(&mut peer.tasks);
            peer.stale.extend(lost);
        }
        let named = peer.tasks.iter().map(|(key, lease)| v1::TaskRef {
            task_id: key.to_string(),
            lease_token: lease.to_string(),
        });
        let tasks_in_flight = named.collect();
        let register =
            v1::Register { tasks_in_flight, ..register("t", &format!("a{agent}"), slots) };
        self.peers[agent].session = Some(self.world.connect(register));
    }

    fn result(&mut self, agent: usize, which: usize, verdict: u8) {
        let peer = &mut self.peers[agent];
        let (Some(session), true) = (peer.session, which < peer.tasks.len()) else { return };
        let task = peer.tasks.remove(which);
        peer.stale.push(task);
        let verdict = match verdict {
            0 => AgentVerdict::Succeeded("1".into()),
            1 => failure("x", FailureKind::Retryable),
            2 => failure("y", FailureKind::Permanent),
            _ => AgentVerdict::Cancelled,
        };
        self.world.result(session, task, verdict);
    }

    /// The sink answers everything it has.
    fn answer(&mut self, ack: Option<bool>) {
        let ack =
            ack.map(|durable| if durable { ReportAck::Durable } else { ReportAck::LeaseLost });
        for (report, subject) in std::mem::take(&mut self.world.reports) {
            match subject {
                Subject::Started { key, .. } => {
                    if ack == Some(ReportAck::Durable) {
                        *self.started.entry(key).or_default() += 1;
                    } else if ack == Some(ReportAck::LeaseLost) && self.is_out(key) {
                        self.open.remove(&key);
                    }
                }
                Subject::Ended { key, .. } if ack.is_some() => {
                    assert!(self.open.remove(&key), "{key} ended twice: {report:?}");
                }
                _ => {}
            }
            if report.task.outcome == TaskOutcome::LostAtMostOnce {
                assert!(ack.is_none() || !self.is_out(report.task.key));
            }
            self.world.act(|matcher| matcher.answered(subject, ack));
        }
    }

    fn is_out(&self, key: TaskKey) -> bool {
        let task = self.world.matcher.tasks.get(&key);
        task.is_some_and(|task| matches!(task.state, State::Out(_)))
    }

    /// Agents read what they are sent.
    fn read(&mut self) {
        for peer in &mut self.peers {
            let Some(session) = peer.session else { continue };
            for frame in self.world.frames(session) {
                match frame {
                    Outgoing::Assign(it) => peer.tasks.push((it.order.key, it.lease)),
                    Outgoing::LeaseLost { key, .. } => {
                        let lost = peer.tasks.extract_if(.., |(own, _)| *own == key);
                        peer.stale.extend(lost);
                    }
                    Outgoing::Registered { kept, .. } => {
                        let lost = peer.tasks.extract_if(.., |task| !kept.contains(task));
                        peer.stale.extend(lost);
                    }
                    _ => {}
                }
            }
        }
    }

    /// What holds at every moment.
    fn check(&mut self) {
        let matcher = &self.world.matcher;
        let known: BTreeSet<TaskKey> = matcher.tasks.keys().copied().collect();
        assert_eq!(known, self.open, "an order is in exactly one place until it has ended");
        let mut places: BTreeMap<TaskKey, u32> = BTreeMap::new();
        let (mut queued, mut running, mut in_lanes) = (0, 0, 0);
        for (key, task) in matcher.tasks.keys().zip(matcher.tasks.values()) {
            match &task.state {
                State::Waiting(waiting) => {
                    queued += 1;
                    in_lanes += usize::from(waiting.queued);
                    let parked = waiting.gate.is_some() || waiting.held_since.is_some();
                    assert!(waiting.queued || parked, "{key} waits for nothing: {task:?}");
                    if waiting.gate.is_some() && waiting.held_since.is_none() {
                        assert!(task.timer.is_some(), "{key} is never looked at again");
                    }
                }
                State::Out(out) => {
                    running += 1;
                    assert!(task.timer.is_some(), "{key} is never looked at again");
                    assert!(matcher.registry.get(out.agent).is_some(), "{key} is at nobody");
                }
                State::Ended(ended) => assert!(ended.pending || task.timer.is_some()),
            }
        }
        for agent in matcher.registry.agents.values() {
            let counted: u32 = agent.out_per_action.values().sum();
            assert_eq!(counted as usize, agent.out(), "counts are kept");
            for key in &agent.tasks {
                *places.entry(*key).or_default() += 1;
            }
            assert!(agent.session.is_some() || !agent.tasks.is_empty(), "a ghost");
        }
        assert!(places.values().all(|count| *count == 1), "one task, one agent");
        assert_eq!(places.len(), running);
        let lanes: usize = matcher.lanes.lanes.values().map(|lane| lane.queue.len()).sum();
        assert_eq!(lanes, in_lanes);
        assert_eq!((matcher.counts().queued, matcher.counts().running), (queued, running));
        self.check_nobody_idles();
    }

    /// No task waits that an agent could take, and no agent has more than its credits, except
    /// what it had before they were lowered or what it claimed.
    fn check_nobody_idles(&self) {
        let matcher = &self.world.matcher;
        let waits = |lane: &&super::super::lanes::Lane| lane.queue.len() > 0 || lane.is_full();
        for lane in matcher.lanes.lanes.values().filter(waits) {
            for id in &lane.agents {
                let agent = matcher.registry.get(*id).unwrap();
                assert!(!agent.can_take(&lane.needs.action, matcher.now), "{agent:?} idles");
            }
        }
    }
}

fn delivery(at_most_once: bool) -> Delivery {
    if at_most_once { Delivery::AtMostOnce } else { Delivery::AtLeastOnce }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn credits_are_kept_and_no_order_is_lost(steps in prop::collection::vec(step(), 1..120)) {
        let mut life = Life::new();
        for step in &steps {
            life.step(step);
        }
        // In the end everybody is well again, and everything comes to its end.
        life.step(&Step::Hold { hold: false });
        for _ in 0..40 {
            life.step(&Step::Connect { agent: 0, slots: 100, names_tasks: true });
            life.step(&Step::Answer { ack: Some(true) });
            for _ in 0..TASKS {
                life.step(&Step::Result { agent: 0, which: 0, verdict: 0 });
            }
            life.step(&Step::Answer { ack: Some(true) });
            life.step(&Step::Pass { millis: 2_000 });
        }
        prop_assert!(life.open.is_empty(), "never ended: {:?}", life.world.matcher.tasks);
    }

    #[test]
    fn no_assignment_exceeds_the_credits_of_its_moment(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut life = Life::new();
        let mut before: BTreeMap<String, usize> = BTreeMap::new();
        for step in &steps {
            life.step(step);
            let mut after = BTreeMap::new();
            for agent in life.world.matcher.registry.agents.values() {
                let name = agent.registration.instance.to_string();
                let had = before.get(&name).copied().unwrap_or(0);
                let bound = (agent.credits.total as usize).max(had);
                let claimed = matches!(step, Step::Connect { .. } | Step::Expect { .. }
                    | Step::StaleResult { .. } | Step::Status { .. });
                prop_assert!(claimed || agent.out() <= bound, "{} > {bound}", agent.out());
                after.insert(name, agent.out());
            }
            before = after;
        }
    }
}
