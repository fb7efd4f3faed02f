//! Random lives of replicas that lend each other agents: whatever dies, breaks or comes late, no
//! agent has more than it can do, every task is answered by its owner, once, and all comes to
//! an end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::task::{TaskKey, TaskOrder, TaskOutcome};
use proptest::prelude::*;

use super::super::super::report::{ReportAck, Subject};
use super::web::Web;
use super::world::{key, order};

const WORKERS: usize = 3;
const TASKS: u32 = 12;
const NAMES: [&str; 4] = ["u", "v", "w", "x"];

#[derive(Clone, Debug)]
enum Step {
    Submit {
        node: usize,
        task: u32,
    },
    Finish {
        worker: usize,
        which: usize,
    },
    /// One link moves one message each way.
    Turn {
        wire: usize,
    },
    Read {
        worker: usize,
    },
    Beat {
        worker: usize,
    },
    Move {
        worker: usize,
        node: usize,
    },
    Disconnect {
        worker: usize,
    },
    Cut {
        wire: usize,
    },
    Link {
        borrower: usize,
        lender: usize,
    },
    Kill {
        node: usize,
    },
    Cancel {
        task: u32,
        node: usize,
    },
    Answer {
        durable: bool,
    },
    Settle,
    Pass {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..3_usize;
    let worker = 0..WORKERS;
    prop_oneof![
        8 => (node.clone(), 0..TASKS).prop_map(|(node, task)| Step::Submit { node, task }),
        8 => (worker.clone(), 0..4_usize).prop_map(|(worker, which)| {
            Step::Finish { worker, which }
        }),
        12 => (0..6_usize).prop_map(|wire| Step::Turn { wire }),
        6 => worker.clone().prop_map(|worker| Step::Read { worker }),
        3 => worker.clone().prop_map(|worker| Step::Beat { worker }),
        2 => (worker.clone(), node.clone()).prop_map(|(worker, node)| Step::Move { worker, node }),
        1 => worker.prop_map(|worker| Step::Disconnect { worker }),
        1 => (0..6_usize).prop_map(|wire| Step::Cut { wire }),
        2 => (node.clone(), node.clone()).prop_map(|(borrower, lender)| {
            Step::Link { borrower, lender }
        }),
        1 => node.clone().prop_map(|node| Step::Kill { node }),
        1 => (0..TASKS, node).prop_map(|(task, node)| Step::Cancel { task, node }),
        4 => any::<bool>().prop_map(|durable| Step::Answer { durable }),
        4 => Just(Step::Settle),
        4 => prop_oneof![0..50_u64, 500..4_000_u64].prop_map(|millis| Step::Pass { millis }),
    ]
}

struct Life {
    web: Web,
    /// Which replica owns the run of an open task.
    open: BTreeMap<TaskKey, (usize, TaskOrder)>,
    ended: BTreeSet<TaskKey>,
}

impl Life {
    fn new() -> Self {
        let mut web = Web::new(3);
        for worker in 0..WORKERS {
            web.worker(&format!("a{worker}"), 2, worker.min(1));
        }
        Self { web, open: BTreeMap::new(), ended: BTreeSet::new() }
    }

    fn is_there(&self, node: usize) -> bool {
        self.web.nodes.get(node).is_some_and(Option::is_some)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { node, task } => self.submit(node, task),
            Step::Finish { worker, which } => {
                let task = self.web.workers[worker].running.keys().nth(which).cloned();
                task.into_iter().for_each(|task| self.web.finish(worker, &task));
            }
            Step::Turn { wire } => {
                self.web.turn(wire);
            }
            Step::Read { worker } => self.web.read(worker),
            Step::Beat { worker } => self.web.beat(worker),
            Step::Move { worker, node } => {
                if self.is_there(node) {
                    // The old stream is found dead later, if at all.
                    self.web.connect(worker, node);
                }
            }
            Step::Disconnect { worker } => self.web.disconnect(worker),
            Step::Cut { wire } => {
                if let Some((borrower, lender)) = self.web.ends(wire) {
                    self.web.cut(borrower, lender);
                }
            }
            Step::Link { borrower, lender } => {
                if borrower != lender && self.is_there(borrower) && self.is_there(lender) {
                    self.web.link(borrower, lender);
                }
            }
            Step::Kill { node } => self.kill(node),
            Step::Cancel { task, node } => {
                let key = key(NAMES[node], task);
                if let Some((owner, _)) = self.open.get(&key) {
                    let grace = Duration::from_secs(2);
                    self.web.act(*owner, |matcher| matcher.cancel(key, "", grace));
                }
            }
            Step::Answer { durable } => self.answer(durable),
            Step::Settle => self.web.settle(),
            Step::Pass { millis } => self.web.pass(Duration::from_millis(millis)),
        }
        self.check();
    }

    fn submit(&mut self, node: usize, task: u32) {
        let order = order(NAMES[node], task);
        let known = self.open.contains_key(&order.key) || self.ended.contains(&order.key);
        if self.is_there(node) && !known {
            self.open.insert(order.key, (node, order.clone()));
            self.web.submit(node, order);
        }
    }

    /// A replica dies; another one adopts its runs at once, a third comes in its place.
    fn kill(&mut self, node: usize) {
        if !self.is_there(node) || self.web.nodes.len() > 4 {
            return;
        }
        self.web.kill(node);
        let heir = (0..self.web.nodes.len()).find(|other| self.is_there(*other));
        let heir = heir.unwrap_or_else(|| self.web.add_node());
        let orders: Vec<TaskOrder> = self
            .open
            .values_mut()
            .filter(|(owner, _)| *owner == node)
            .map(|(owner, order)| {
                *owner = heir;
                order.clone()
            })
            .collect();
        orders.into_iter().for_each(|order| self.web.expect(heir, order));
        self.web.add_node();
    }

    fn answer(&mut self, durable: bool) {
        for node in 0..self.web.nodes.len() {
            if !self.is_there(node) {
                continue;
            }
            for (report, subject) in std::mem::take(&mut self.web.node(node).reports) {
                let key = report.task.key;
                if let (Subject::Ended { .. }, true) = (subject, durable) {
                    let owner = self.open.remove(&key);
                    assert!(owner.is_some_and(|(owner, _)| owner == node), "{key} ended twice");
                    assert!(self.ended.insert(key));
                }
                let ack = durable.then_some(ReportAck::Durable);
                self.web.act(node, |matcher| matcher.answered(subject, ack));
            }
            for (key, subject) in std::mem::take(&mut self.web.node(node).inquiries) {
                // Only of what has ended it can be told.
                let ack = self.ended.contains(&key).then_some(ReportAck::Duplicate);
                self.web.act(node, |matcher| matcher.answered(subject, ack));
            }
        }
    }

    /// What holds at every moment.
    fn check(&mut self) {
        for (number, node) in self.web.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            for key in node.matcher.tasks.keys() {
                let owner = self.open.get(key).map(|(owner, _)| *owner);
                assert_eq!(owner, Some(number), "{key} is where its run is");
            }
            for agent in node.matcher.registry.in_order() {
                let lent: u32 = agent.loans.values().map(|loan| loan.out).sum();
                let strays = node.matcher.lending.strays.out_at(agent.id);
                assert_eq!((lent + agent.sought) as usize, strays, "{agent:?}");
                assert!(agent.lender.is_none() || agent.loans.is_empty(), "lent on: {agent:?}");
            }
        }
        for worker in &self.web.workers {
            for task in &worker.acknowledged {
                assert!(self.ended.contains(&task.parse().unwrap()), "{task} is not durable");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_answered_once_by_its_owner(steps in prop::collection::vec(step(), 1..150)) {
        let mut life = Life::new();
        for step in &steps {
            life.step(step);
        }
        // In the end everybody is well again, and everything comes to its end.
        let there: Vec<usize> = (0..life.web.nodes.len()).filter(|it| life.is_there(*it)).collect();
        for borrower in &there {
            for lender in &there {
                if borrower != lender {
                    life.web.link(*borrower, *lender);
                }
            }
        }
        for round in 0..60 {
            for worker in 0..WORKERS {
                if life.web.workers[worker].at.is_none() {
                    life.web.connect(worker, there[(worker + round) % there.len()]);
                }
                life.web.finish_all(worker);
            }
            life.web.live(1_000);
            life.answer(true);
            life.web.settle();
            life.check();
        }
        prop_assert!(life.open.is_empty(), "never ended: {:?}", life.open.keys());
        prop_assert_eq!(life.web.running(), 0);
        let kept: usize = life.web.workers.iter().map(|worker| worker.done.len()).sum();
        prop_assert_eq!(kept, 0, "all results are acknowledged");
        for node in there {
            let matcher = &life.web.node(node).matcher;
            prop_assert!(matcher.lending.strays.is_empty());
            for agent in matcher.registry.in_order() {
                prop_assert_eq!(agent.taken(), 0, "{:?}", agent);
            }
        }
    }

    #[test]
    fn without_deaths_no_agent_ever_has_more_than_its_slots(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut life = Life::new();
        for step in &steps {
            let calm = !matches!(
                step,
                Step::Kill { .. } | Step::Cut { .. } | Step::Move { .. }
                    | Step::Disconnect { .. } | Step::Cancel { .. } | Step::Link { .. }
            );
            // Nobody is so slow that a lease or an acceptance runs out.
            let calm = calm && !matches!(step, Step::Pass { millis } if *millis > 50);
            if calm {
                life.step(step);
                for worker in 0..WORKERS {
                    life.web.beat(worker);
                }
                life.web.assert_within_slots();
            }
        }
    }
}

/// Outcomes are compared by their kind alone.
#[test]
fn a_task_that_is_cancelled_everywhere_ends_once() {
    let mut life = Life::new();
    life.web.settle();
    for task in 0..TASKS {
        life.step(&Step::Submit { node: 2, task });
    }
    life.web.settle();
    for task in 0..TASKS {
        life.step(&Step::Cancel { task, node: 2 });
    }
    (0..WORKERS).for_each(|worker| life.web.finish_all(worker));
    life.web.settle();
    let outcomes: Vec<TaskOutcome> =
        life.web.node(2).reports.iter().map(|(report, _)| report.task.outcome.clone()).collect();
    assert_eq!(outcomes.len(), TASKS as usize);
    life.answer(true);
    assert!(life.open.is_empty());
}
