//! Several matchers that lend each other agents over links that a test can slow down and cut,
//! and agents that keep to the protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use contracts::v1::{self, connect_request, connect_response};
use engine::task::{TaskKey, TaskOrder, TaskOutcome};
use engine::{Instant, RunId};

use super::super::super::clocks::Clocks;
use super::super::super::lending::{Replica, convert as links};
use super::super::super::report::{Report, ReportAck, Subject};
use super::super::super::session::SessionId;
use super::super::super::{card, convert};
use super::super::{Matcher, Taken};
use super::world::{LIFE, START, register};
use crate::limits;

pub(super) struct Node {
    pub(super) matcher: Matcher,
    pub(super) replica: Replica,
    pub(super) epoch: u64,
    pub(super) reports: Vec<(Report, Subject)>,
    pub(super) inquiries: Vec<(TaskKey, Subject)>,
}

/// One link: from the borrower to the lender and back.
pub(super) struct Wire {
    borrower: usize,
    lender: usize,
    at_borrower: SessionId,
    at_lender: SessionId,
    requests: VecDeque<v1::LendRequest>,
    responses: VecDeque<v1::LendResponse>,
}

/// An agent: it accepts what it gets, and does it when the test says so.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) slots: i32,
    pub(super) at: Option<(usize, SessionId)>,
    token: String,
    /// The lease tokens of the tasks that it works on.
    pub(super) running: BTreeMap<String, String>,
    /// Done, and not acknowledged.
    pub(super) done: BTreeMap<String, String>,
    pub(super) acknowledged: Vec<String>,
    pub(super) cancelled: BTreeSet<String>,
    pub(super) proceeded: BTreeSet<String>,
}

pub(super) struct Web {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) wires: Vec<Wire>,
    pub(super) workers: Vec<Worker>,
    next_epoch: u64,
}

fn replica(number: u64) -> Replica {
    store::OwnerId(uuid::Uuid::from_u64_pair(7, number))
}

fn seconds(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl Web {
    /// So many replicas, all linked.
    pub(super) fn new(count: usize) -> Self {
        let mut web = Self {
            now: START,
            nodes: Vec::new(),
            wires: Vec::new(),
            workers: Vec::new(),
            next_epoch: 0,
        };
        (0..count).for_each(|_| {
            web.add_node();
        });
        web
    }

    pub(super) fn add_node(&mut self) -> usize {
        self.next_epoch += 1;
        self.nodes.push(Some(Node {
            matcher: Matcher::new(Clocks::default(), BTreeMap::new()),
            replica: replica(self.next_epoch),
            epoch: self.next_epoch,
            reports: Vec::new(),
            inquiries: Vec::new(),
        }));
        let added = self.nodes.len() - 1;
        for other in 0..added {
            self.link(other, added);
            self.link(added, other);
        }
        added
    }

    /// Opens a link by which `borrower` borrows of `lender`.
    pub(super) fn link(&mut self, borrower: usize, lender: usize) {
        let there = |web: &Self, node: usize| {
            web.nodes[node].as_ref().map(|node| (node.replica, node.epoch))
        };
        let (Some(b), Some(l)) = (there(self, borrower), there(self, lender)) else { return };
        if self.wires.iter().any(|it| it.borrower == borrower && it.lender == lender) {
            return;
        }
        let at_borrower = self.act(borrower, |matcher| matcher.lender_joined(l.0));
        let at_lender = self.act(lender, |matcher| matcher.borrower_joined(b.0, b.1));
        self.wires.push(Wire {
            borrower,
            lender,
            at_borrower,
            at_lender,
            requests: VecDeque::new(),
            responses: VecDeque::new(),
        });
    }

    /// Cuts a link; what is on its way is lost.
    pub(super) fn cut(&mut self, borrower: usize, lender: usize) {
        let cut: Vec<Wire> = self
            .wires
            .extract_if(.., |it| it.borrower == borrower && it.lender == lender)
            .collect();
        for wire in cut {
            self.end(&wire);
        }
    }

    /// The borrower and the lender of a link.
    pub(super) fn ends(&self, wire: usize) -> Option<(usize, usize)> {
        self.wires.get(wire).map(|it| (it.borrower, it.lender))
    }

    fn end(&mut self, wire: &Wire) {
        for (node, link) in [(wire.borrower, wire.at_borrower), (wire.lender, wire.at_lender)] {
            if self.nodes[node].is_some() {
                self.act(node, |matcher| matcher.link_gone(link));
            }
        }
    }

    /// A replica dies; its agents lose their streams.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
        let cut: Vec<Wire> =
            self.wires.extract_if(.., |it| it.borrower == node || it.lender == node).collect();
        for wire in cut {
            self.end(&wire);
        }
        for worker in &mut self.workers {
            if worker.at.is_some_and(|(at, _)| at == node) {
                worker.at = None;
            }
        }
    }

    pub(super) fn node(&mut self, node: usize) -> &mut Node {
        self.nodes[node].as_mut().unwrap()
    }

    pub(super) fn act<T>(&mut self, node: usize, act: impl FnOnce(&mut Matcher) -> T) -> T {
        let now = self.now;
        let node = self.node(node);
        node.matcher.advance(now);
        let result = act(&mut node.matcher);
        let effects = node.matcher.take_effects();
        node.reports.extend(effects.reports);
        let asked = effects
            .inquiries
            .into_iter()
            .map(|(key, lease, agent)| (key, Subject::Unknown { key, lease, agent }));
        node.inquiries.extend(asked);
        result
    }

    pub(super) fn submit(&mut self, node: usize, order: TaskOrder) {
        let (epoch, queued_at) = (self.node(node).epoch, self.now);
        self.act(node, |matcher| matcher.submit(TaskOrder { epoch, queued_at, ..order }));
    }

    pub(super) fn expect(&mut self, node: usize, order: TaskOrder) {
        let (epoch, queued_at) = (self.node(node).epoch, self.now);
        let order = TaskOrder { epoch, queued_at, ..order };
        self.act(node, |matcher| matcher.expect(order, seconds(3)));
    }

    pub(super) fn worker(&mut self, name: &str, slots: i32, node: usize) -> usize {
        let name = name.to_owned();
        self.workers.push(Worker { name, slots, ..Worker::default() });
        let worker = self.workers.len() - 1;
        self.connect(worker, node);
        worker
    }

    /// An agent connects, naming all that it has.
    pub(super) fn connect(&mut self, worker: usize, node: usize) {
        let it = &self.workers[worker];
        let named = it
            .running
            .iter()
            .chain(&it.done)
            .map(|(task, lease)| v1::TaskRef { task_id: task.clone(), lease_token: lease.clone() });
        let register = v1::Register {
            tasks_in_flight: named.collect(),
            session_token: it.token.clone(),
            ..register("t", &it.name, it.slots)
        };
        let registration = card::check(register).unwrap();
        let token = format!("{}-{}-{node}", it.name, self.now.0);
        let session = self.act(node, |matcher| {
            matcher.register(registration, token.as_str().into(), LIFE, false)
        });
        let it = &mut self.workers[worker];
        it.token = token;
        it.at = Some((node, session.unwrap()));
        // Whatever is done is said again on every new stream.
        let done: Vec<String> = it.done.keys().cloned().collect();
        self.read(worker);
        done.into_iter().for_each(|task| self.send_result(worker, &task));
    }

    /// An agent's stream breaks; it goes on by itself.
    pub(super) fn disconnect(&mut self, worker: usize) {
        let Some((node, session)) = self.workers[worker].at.take() else { return };
        self.act(node, |matcher| matcher.gone(session));
    }

    pub(super) fn say(&mut self, worker: usize, frame: connect_request::Frame) {
        let Some((node, session)) = self.workers[worker].at else { return };
        let heard = self.act(node, |matcher| {
            let Some(frame) = matcher.pass_on(session, frame) else { return true };
            matcher.hear(session, convert::incoming(frame))
        });
        if !heard {
            self.workers[worker].at = None;
        }
    }

    fn task_ref(&self, worker: usize, task: &str) -> Option<v1::TaskRef> {
        let it = &self.workers[worker];
        let lease = it.running.get(task).or_else(|| it.done.get(task))?;
        Some(v1::TaskRef { task_id: task.to_owned(), lease_token: lease.clone() })
    }

    fn send_result(&mut self, worker: usize, task: &str) {
        let task_ref = self.task_ref(worker, task);
        let success = v1::TaskSuccess { output: None, confidence: None };
        let outcome = if self.workers[worker].cancelled.contains(task) {
            v1::task_result::Outcome::Cancelled(v1::TaskCancelled::default())
        } else {
            v1::task_result::Outcome::Success(success)
        };
        let result = v1::TaskResult { task: task_ref, outcome: Some(outcome), usage: None };
        self.say(worker, connect_request::Frame::Results(v1::Results { results: vec![result] }));
    }

    /// An agent has done a task.
    pub(super) fn finish(&mut self, worker: usize, task: &str) {
        let it = &mut self.workers[worker];
        let Some(lease) = it.running.remove(task) else { return };
        it.done.insert(task.to_owned(), lease);
        self.send_result(worker, task);
    }

    pub(super) fn finish_all(&mut self, worker: usize) {
        let running: Vec<String> = self.workers[worker].running.keys().cloned().collect();
        running.into_iter().for_each(|task| self.finish(worker, &task));
    }

    /// An agent says that it lives, what it has, and once more what it has done.
    pub(super) fn beat(&mut self, worker: usize) {
        let it = &self.workers[worker];
        let tasks: Vec<v1::TaskRef> = it
            .running
            .iter()
            .chain(&it.done)
            .map(|(task, lease)| v1::TaskRef { task_id: task.clone(), lease_token: lease.clone() })
            .collect();
        let done: Vec<String> = it.done.keys().cloned().collect();
        self.say(worker, connect_request::Frame::Pong(v1::Pong::default()));
        self.say(worker, connect_request::Frame::Status(v1::Status { tasks }));
        done.into_iter().for_each(|task| self.send_result(worker, &task));
    }

    /// An agent reads what it is sent, and accepts its tasks.
    pub(super) fn read(&mut self, worker: usize) {
        use connect_response::Frame;
        let Some((node, session)) = self.workers[worker].at else { return };
        let mut frames = Vec::new();
        loop {
            match self.act(node, |matcher| matcher.take(session, true)) {
                Taken::Frames(taken) if taken.is_empty() => break,
                Taken::Frames(taken) => frames.extend(taken),
                Taken::Closed => {
                    self.workers[worker].at = None;
                    break;
                }
            }
        }
        for response in convert::responses(frames, &Clocks::default()) {
            match response.frame.unwrap() {
                Frame::Assign(assign) => {
                    for task in assign.tasks {
                        self.begin(worker, task.r#ref.unwrap());
                    }
                }
                Frame::ResultsAck(acks) => {
                    for ack in acks.acks {
                        let it = &mut self.workers[worker];
                        if it.done.remove(&ack.task_id).is_some() {
                            it.acknowledged.push(ack.task_id);
                        }
                    }
                }
                Frame::LeaseLost(lost) => self.drop_task(worker, &lost.task_id),
                Frame::Cancel(cancel) => {
                    let task = cancel.task.unwrap();
                    let it = &mut self.workers[worker];
                    if it.running.get(&task.task_id) == Some(&task.lease_token) {
                        it.cancelled.insert(task.task_id);
                    }
                }
                Frame::Proceed(proceed) => {
                    self.workers[worker].proceeded.insert(proceed.task.unwrap().task_id);
                }
                Frame::Registered(registered) => {
                    let kept: BTreeSet<String> =
                        registered.tasks_kept.into_iter().map(|task| task.task_id).collect();
                    let it = &mut self.workers[worker];
                    it.running.retain(|task, _| kept.contains(task));
                    it.done.retain(|task, _| kept.contains(task));
                }
                _ => {}
            }
        }
    }

    fn begin(&mut self, worker: usize, task: v1::TaskRef) {
        let it = &mut self.workers[worker];
        it.done.remove(&task.task_id);
        it.cancelled.remove(&task.task_id);
        it.running.insert(task.task_id.clone(), task.lease_token.clone());
        self.say(worker, connect_request::Frame::Accepted(v1::Accepted { task: Some(task) }));
    }

    fn drop_task(&mut self, worker: usize, task: &str) {
        let it = &mut self.workers[worker];
        it.running.remove(task);
        it.done.remove(task);
        it.cancelled.remove(task);
    }

    /// One link sends what it has; and delivers one message in each direction.
    pub(super) fn turn(&mut self, wire: usize) -> bool {
        let Some(it) = self.wires.get(wire) else { return false };
        let (borrower, lender) = (it.borrower, it.lender);
        let (at_borrower, at_lender) = (it.at_borrower, it.at_lender);
        let asked = self.act(borrower, |matcher| matcher.take_link(at_borrower, true));
        let lent = self.act(lender, |matcher| matcher.take_link(at_lender, true));
        let (Some(asked), Some(lent)) = (asked, lent) else {
            self.cut(borrower, lender);
            return true;
        };
        let now = self.now;
        let it = &mut self.wires[wire];
        it.requests.extend(links::requests(asked, &Clocks::default(), now));
        it.responses.extend(links::responses(lent));
        let (request, response) = (it.requests.pop_front(), it.responses.pop_front());
        let moved = request.is_some() || response.is_some();
        if let Some(request) = request {
            let frames = links::from_borrower(request, now);
            self.act(lender, |matcher| matcher.hear_borrower(at_lender, frames));
        }
        if let Some(response) = response {
            let frames = links::from_lender(response);
            self.act(borrower, |matcher| matcher.hear_lender(at_borrower, frames));
        }
        moved
    }

    /// Everything that is on its way arrives, and everybody reads. What waits is not told more
    /// often than each so much time, which passes.
    pub(super) fn settle(&mut self) {
        self.rest();
        self.pass(limits::WANTS_EVERY);
        self.rest();
    }

    fn rest(&mut self) {
        for _ in 0..1_000 {
            let mut moved = false;
            for wire in 0..self.wires.len() {
                moved |= self.turn(wire);
            }
            let before: usize = self.workers.iter().map(|it| it.running.len()).sum();
            (0..self.workers.len()).for_each(|worker| self.read(worker));
            let after: usize = self.workers.iter().map(|it| it.running.len()).sum();
            if !moved && before == after {
                return;
            }
        }
        panic!("the links never come to rest");
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        loop {
            let next = |node: &Option<Node>| node.as_ref()?.matcher.next_deadline();
            let next = self.nodes.iter().filter_map(next).min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            for node in 0..self.nodes.len() {
                if self.nodes[node].is_some() {
                    self.act(node, Matcher::tick);
                }
            }
        }
        self.now = end;
    }

    /// Lets time pass while everybody is well.
    pub(super) fn live(&mut self, millis: u64) {
        let mut left = millis;
        while left > 0 {
            let step = left.min(500);
            self.pass(Duration::from_millis(step));
            (0..self.workers.len()).for_each(|worker| self.beat(worker));
            self.settle();
            left -= step;
        }
    }

    /// The sinks answer all they were told; gives which tasks ended where.
    pub(super) fn answer(&mut self, ack: Option<ReportAck>) -> Vec<(usize, TaskKey, TaskOutcome)> {
        let mut ended = Vec::new();
        for node in 0..self.nodes.len() {
            let Some(it) = self.nodes[node].as_mut() else { continue };
            for (report, subject) in std::mem::take(&mut it.reports) {
                if matches!(subject, Subject::Ended { .. }) && ack.is_some() {
                    ended.push((node, report.task.key, report.task.outcome));
                }
                self.act(node, |matcher| matcher.answered(subject, ack));
            }
        }
        ended
    }

    pub(super) fn running(&self) -> usize {
        self.workers.iter().map(|worker| worker.running.len()).sum()
    }

    pub(super) fn assert_within_slots(&self) {
        for worker in &self.workers {
            let running = worker.running.len();
            assert!(running <= worker.slots as usize, "{} has {running}", worker.name);
        }
    }
}

/// A run of its own for each name.
pub(super) fn run(name: &str) -> RunId {
    super::world::run(name)
}
