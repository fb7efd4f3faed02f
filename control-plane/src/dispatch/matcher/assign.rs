//! Puts tasks into the queue and takes them out for agents. After every event no task waits
//! that an agent could take; so a new task concerns its own lane alone, and room at an agent
//! the lanes that it serves.

use std::sync::Arc;

use engine::task::{
    DeclaredUndo, Delivery, FailureKind, Purpose, TaskKey, TaskOrder, TaskOutcome, Touch,
};

use super::super::card::ActionSpec;
use super::super::fair_queue::Head;
use super::super::lease::LeaseToken;
use super::super::registry::{AgentId, LaneId};
use super::super::session::{Assignment, Outgoing};
use super::{Matcher, Out, Phase, State, lanes};

impl Matcher {
    /// Puts a waiting task into the queue, unless something holds it back.
    pub(super) fn enqueue(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let State::Waiting(waiting) = &mut task.state else { return };
        let gated = waiting.gate.is_some_and(|gate| gate > self.now);
        if waiting.queued || gated || waiting.held_since.is_some() || task.order.begun {
            return;
        }
        if waiting.is_over() {
            return;
        }
        waiting.gate = None;
        waiting.reserved = false;
        task.level = super::timers::level(&task.order, self.now);
        let Some(lane) = self.lanes.lanes.get_mut(&task.lane) else { return };
        let place = (task.order.queued_at, task.serial);
        let fairness = &task.order.fairness_key;
        lane.queue.insert(task.level, fairness, place, key, &mut self.lanes.shares);
        waiting.queued = true;
    }

    /// Takes a waiting task out of the queue; it waits on.
    pub(super) fn dequeue(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let State::Waiting(waiting) = &mut task.state else { return };
        if !waiting.queued {
            return;
        }
        waiting.queued = false;
        let Some(lane) = self.lanes.lanes.get_mut(&task.lane) else { return };
        let place = (task.order.queued_at, task.serial);
        let fairness = &task.order.fairness_key;
        lane.queue.remove(task.level, fairness, place, &mut self.lanes.shares);
        if self.has_wanted() {
            self.wants_changed();
        }
    }

    /// Moves a queued task up to the level it has reached by waiting.
    pub(super) fn promote(&mut self, key: TaskKey) {
        self.dequeue(key);
        self.enqueue(key);
    }

    /// Gives out what the lane has, as far as there are agents for it.
    pub(super) fn match_lane(&mut self, id: LaneId) {
        loop {
            let Some(lane) = self.lanes.lanes.get_mut(&id) else { return };
            let Some(head) = lane.queue.head(&self.lanes.shares) else { return };
            let avoid = self.tasks.get(&head.key).and_then(|task| task.avoid);
            let Some(lane) = self.lanes.get(id) else { return };
            let waiting = u32::try_from(lane.queue.len()).unwrap_or(u32::MAX);
            let Some(agent) = self.lanes.pick(id, &self.registry, avoid, self.now) else {
                self.wants_changed();
                if !self.lending.lent.is_empty() {
                    self.recall(id, waiting, None);
                }
                return;
            };
            self.assign(head.key, agent);
        }
    }

    /// Gives a new task out without a turn in the queue, where nothing holds it back, nothing waits
    /// in its lane and an agent has room. False when it is to be queued.
    pub(super) fn assign_at_once(&mut self, key: TaskKey, id: LaneId) -> bool {
        let Some(task) = self.tasks.get(&key) else { return false };
        let State::Waiting(waiting) = &task.state else { return false };
        let is_held = waiting.gate.is_some_and(|gate| gate > self.now)
            || waiting.held_since.is_some()
            || task.order.begun;
        if is_held || self.lanes.get(id).is_none_or(|lane| lane.queue.len() > 0) {
            return false;
        }
        let Some(agent) = self.lanes.pick(id, &self.registry, task.avoid, self.now) else {
            return false;
        };
        self.assign(key, agent);
        true
    }

    /// The best of what waits in the lanes of an agent; with `room`, as far as it has room.
    pub(super) fn best_for(&mut self, id: AgentId, room: bool) -> Option<Head> {
        let agent = self.registry.get(id)?;
        let is_full = room && agent.taken() >= agent.credits.total as usize;
        if !agent.is_open() || !agent.takes_more() || is_full {
            return None;
        }
        let mut best: Option<Head> = None;
        for lane_id in &agent.lanes {
            let Some(lane) = self.lanes.lanes.get_mut(lane_id) else { continue };
            let action = &lane.needs.action;
            let can_take = agent.breaker_permits(action, self.now);
            if lane.queue.len() == 0 || !can_take || (room && !agent.has_credit(action)) {
                continue;
            }
            if lanes::present_preferred(lane, &self.registry).is_some_and(|other| other != id) {
                continue;
            }
            if let Some(head) = lane.queue.head(&self.lanes.shares)
                && best.is_none_or(|best| head.goes_before(&best))
            {
                best = Some(head);
            }
        }
        best
    }

    /// Rooms changed for lanes that wait for an instance which is not there any more.
    pub(super) fn match_lanes_preferring(&mut self, id: AgentId) {
        let Some(agent) = self.registry.get(id) else { return };
        let mut preferring = agent.lanes.clone();
        preferring.retain(|lane| {
            let lane = self.lanes.get(*lane);
            lane.is_some_and(|lane| lane.needs.preferred.is_some())
        });
        for lane in preferring {
            self.match_lane(lane);
        }
    }

    pub(super) fn assign(&mut self, key: TaskKey, agent_id: AgentId) {
        self.dequeue(key);
        if let Some(outcome) = self.name_undo(key, agent_id) {
            return self.end_waiting(key, outcome);
        }
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some(agent) = self.registry.get_mut(agent_id) else { return };
        let name = &task.order.action;
        self.lease_counter += 1;
        let lease = LeaseToken {
            epoch: task.order.epoch,
            attempt: task.order.attempt,
            counter: self.lease_counter,
        };
        let spec = agent.registration.actions.get(name).cloned();
        let action = spec.unwrap_or_else(|| Arc::new(ActionSpec::undeclared(name)));
        let trial = agent.breakers.get_mut(name).is_some_and(|breaker| breaker.begin(self.now));
        self.lanes.shares.charge(&task.order.fairness_key);
        if task.claimable && task.order.key.purpose == Purpose::Do {
            // Who had it under an earlier owner did not come back, and may have begun it.
            task.touched.push(Touch::unknown());
        }
        task.claimable = false;
        task.progress = None;
        task.state = State::Out(Out {
            agent: agent_id,
            lease,
            action: action.clone(),
            assigned_at: self.now,
            phase: Phase::Assigned,
            accept_by: self.now.after(self.clocks.accept),
            lease_until: self.now.after(self.clocks.lease),
            timeout_at: None,
            cancel_until: None,
            start_again_at: None,
            trial,
        });
        agent.tasks.insert(key);
        agent.count_out(name);
        self.counts.queued -= 1;
        self.counts.running += 1;
        let assignment = Assignment {
            order: task.order.clone(),
            lease,
            action,
            checkpoint: task.checkpoint.clone(),
            at: self.now,
        };
        self.hand_over(agent_id, key, assignment);
        self.schedule_task(key);
        self.schedule_agent(agent_id);
    }

    /// Where only the action to undo is known, the agent says by what it is undone. Gives the
    /// outcome where that is clear without a task.
    fn name_undo(&mut self, key: TaskKey, agent_id: AgentId) -> Option<TaskOutcome> {
        let task = self.tasks.get_mut(&key).filter(|task| task.order.undo_of)?;
        let agent = self.registry.get(agent_id)?;
        let spec = agent.registration.actions.get(&task.order.action);
        let final_failure = |code: &str, message: &str| {
            Some(super::timers::failed(FailureKind::Permanent, code, message.to_owned(), true))
        };
        let no_output = task.order.input.ends_with("\"output\":null}");
        match spec.map(|spec| &spec.undo) {
            Some(DeclaredUndo::ActionWithOutput(_)) if no_output => {
                let message = "the undo needs the step's output, and the step gave none";
                final_failure("undo_needs_output", message)
            }
            Some(DeclaredUndo::Action(name) | DeclaredUndo::ActionWithOutput(name)) => {
                let action = Arc::from(name.as_str());
                let order = TaskOrder { action, undo_of: false, ..(*task.order).clone() };
                task.order = Arc::new(order);
                None
            }
            Some(DeclaredUndo::Nothing) => {
                let (output, undo) = (Arc::from("null"), DeclaredUndo::Nothing);
                Some(TaskOutcome::Succeeded { output, undo })
            }
            Some(DeclaredUndo::NotUndoable) | None => {
                let message = "the agent says that the action cannot be undone";
                final_failure("not_undoable", message)
            }
        }
    }

    fn hand_over(&mut self, agent: AgentId, key: TaskKey, assignment: Assignment) {
        let session = self.registry.get_mut(agent).and_then(|agent| agent.session.as_mut());
        let Some(session) = session else { return };
        if let Some(poll) = session.poll.as_mut().filter(|_| session.polls) {
            poll.room = poll.room.saturating_sub(1);
            poll.keys.push((key, assignment.lease));
            self.effects.wake.push(session.id);
        } else {
            self.send(agent, Outgoing::Assign(Box::new(assignment)));
        }
    }

    /// Gives a waiting task to the agent that says it has it; false when the claim is not valid.
    pub(super) fn claim(&mut self, key: TaskKey, agent_id: AgentId, lease: LeaseToken) -> bool {
        let Some(task) = self.tasks.get(&key) else { return false };
        let Some(agent) = self.registry.get(agent_id) else { return false };
        // Of whatever epoch: who adopted the run may be older than who gave the task out.
        let fits = task.claimable
            && matches!(task.state, State::Waiting(_))
            && lease.attempt == task.order.attempt;
        // Another may hold it too, to whom it was given before and who never began.
        let may_go_on = !task.order.begun || task.order.begun_by.as_ref() == Some(&agent.as_ref());
        if !fits || !may_go_on {
            return false;
        }
        self.dequeue(key);
        let (Some(task), Some(agent)) = (self.tasks.get_mut(&key), self.registry.get_mut(agent_id))
        else {
            return false;
        };
        let State::Waiting(waiting) = &mut task.state else { return false };
        let cancel = waiting.cancel.take();
        let name = &task.order.action;
        let spec = agent.registration.actions.get(name).cloned();
        let at_most_once = task.order.delivery == Delivery::AtMostOnce;
        let begun = task.order.begun;
        task.claimable = false;
        task.state = State::Out(Out {
            agent: agent_id,
            lease,
            action: spec.unwrap_or_else(|| Arc::new(ActionSpec::undeclared(name))),
            assigned_at: self.now,
            phase: if at_most_once && !begun { Phase::Assigned } else { Phase::Running },
            accept_by: self.now.after(self.clocks.accept),
            lease_until: self.now.after(self.clocks.lease),
            timeout_at: task.order.timeout.map(|timeout| self.now.after(timeout)),
            cancel_until: None,
            start_again_at: None,
            trial: false,
        });
        agent.tasks.insert(key);
        agent.count_out(name);
        self.counts.queued -= 1;
        self.counts.running += 1;
        if at_most_once && begun {
            self.send(agent_id, Outgoing::Proceed { key, lease });
        } else if at_most_once {
            self.accept(key);
        }
        self.schedule_task(key);
        self.schedule_agent(agent_id);
        if let Some((reason, grace)) = cancel {
            self.cancel(key, &reason, grace);
        }
        self.tell_held(agent_id, vec![(key, lease)]);
        self.take_in_stray(agent_id, (key, lease));
        true
    }
}
