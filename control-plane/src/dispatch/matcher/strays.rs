//! Tasks at the agents here that belong to runs of other replicas. What agents say about them
//! goes to the owner, what the owner says goes to the agent; a result is kept until the owner
//! has acknowledged it, and an owner that died is sought.

use std::collections::{BTreeMap, HashMap};

use contracts::v1::{self, connect_request, connect_response};
use engine::Instant;
use engine::task::TaskKey;

use super::super::convert;
use super::super::lease::LeaseToken;
use super::super::lending::convert::task_of;
use super::super::lending::{Held, LinkFrame, Replica};
use super::super::registry::{Agent, AgentId};
use super::super::session::{Outgoing, SessionId};
use super::Matcher;
use crate::limits;

type Id = (TaskKey, LeaseToken);

/// A task of another replica's run.
#[derive(Debug)]
struct Stray {
    agent: AgentId,
    /// Whose run it is of, as far as is known.
    holder: Option<Replica>,
    /// The holder gave it out, or said that it is its.
    confirmed: bool,
    /// The agent works on it.
    out: bool,
    /// Unless something is heard of it until then, it is forgotten.
    until: Instant,
    /// Unless somebody says until then that it is its, the agent loses it.
    claimed_until: Instant,
    result: Option<Box<v1::TaskResult>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Strays {
    all: HashMap<Id, Stray>,
    result_bytes: usize,
}

impl Strays {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many an agent works on.
    #[cfg(test)]
    pub(super) fn out_at(&self, agent: AgentId) -> usize {
        self.all.values().filter(|stray| stray.out && stray.agent == agent).count()
    }

    /// Those of an agent that may be a replica's.
    pub(super) fn claims(&self, agent: &Agent, replica: Replica) -> Held {
        let may_be = |id: &&Id| {
            let holder = self.all.get(id).map(|stray| stray.holder);
            holder.is_some_and(|holder| holder.is_none_or(|holder| holder == replica))
        };
        agent.strays.iter().filter(may_be).copied().collect()
    }

    fn keep_result(&mut self, id: Id, result: &v1::TaskResult) {
        let bytes = prost::Message::encoded_len(result);
        let Some(stray) = self.all.get_mut(&id) else { return };
        // What is not kept for lack of room the agent sends again.
        if stray.result.is_none() && self.result_bytes + bytes <= limits::STRAY_RESULT_BYTES {
            self.result_bytes += bytes;
            stray.result = Some(Box::new(result.clone()));
        }
    }

    fn remove(&mut self, id: Id) -> Option<Stray> {
        let stray = self.all.remove(&id)?;
        if let Some(result) = &stray.result {
            let bytes = prost::Message::encoded_len(&**result);
            self.result_bytes = self.result_bytes.saturating_sub(bytes);
        }
        Some(stray)
    }
}

/// Where a frame about a task goes.
enum Route {
    /// It is of a run here, or of one that nobody has.
    Here,
    To(Replica),
}

impl Matcher {
    /// Whether there is nothing to be passed on.
    pub(crate) fn is_alone(&self) -> bool {
        self.lending.is_alone()
    }

    /// Takes out of an agent's frame what is for the owners of other runs and gives back the
    /// rest, if there is any.
    pub(crate) fn pass_on(
        &mut self,
        session: SessionId,
        frame: connect_request::Frame,
    ) -> Option<connect_request::Frame> {
        use connect_request::Frame;
        if self.lending.is_alone() {
            return Some(frame);
        }
        let Some(id) = self.registry.of_session(session) else { return Some(frame) };
        let rest = match frame {
            Frame::Results(results) => self.pass_results(id, session, results),
            Frame::Status(status) => self.pass_status(id, session, status),
            frame => self.pass_one(id, session, frame),
        };
        if rest.is_none() {
            self.heard(id);
        }
        rest
    }

    /// The agent lives.
    fn heard(&mut self, id: AgentId) {
        let now = self.now;
        let Some(agent) = self.registry.get_mut(id) else { return };
        agent.last_heard = now;
        if let Some(session) = agent.session.as_mut() {
            session.unanswered_since = None;
        }
    }

    fn pass_results(
        &mut self,
        id: AgentId,
        session: SessionId,
        results: v1::Results,
    ) -> Option<connect_request::Frame> {
        let mut here = Vec::new();
        let mut passed: BTreeMap<Replica, (Vec<v1::TaskResult>, u32)> = BTreeMap::new();
        for result in results.results {
            let task = result.task.as_ref().and_then(task_of);
            match task.map_or(Route::Here, |task| self.route(id, task, false)) {
                Route::Here => {
                    if let Some(task) = task {
                        self.lending.strays.keep_result(task, &result);
                    }
                    here.push(result);
                }
                Route::To(replica) => {
                    let of_replica = passed.entry(replica).or_default();
                    if let Some(task) = task {
                        self.lending.strays.keep_result(task, &result);
                        of_replica.1 += u32::from(self.stray_settled(task));
                    }
                    of_replica.0.push(result);
                }
            }
        }
        for (replica, (results, freed)) in passed {
            let frame = connect_request::Frame::Results(v1::Results { results });
            self.tell_borrower(
                replica,
                LinkFrame::Spoke { agent: session.0, frame: Box::new(frame) },
            );
            for _ in 0..freed {
                self.reconsider(id, replica);
            }
            self.match_agent(id);
            self.schedule_agent(id);
        }
        let results = v1::Results { results: here };
        (!results.results.is_empty()).then_some(connect_request::Frame::Results(results))
    }

    fn pass_status(
        &mut self,
        id: AgentId,
        session: SessionId,
        status: v1::Status,
    ) -> Option<connect_request::Frame> {
        let mut here = Vec::new();
        let mut passed: BTreeMap<Replica, Vec<v1::TaskRef>> = BTreeMap::new();
        for task in status.tasks {
            match task_of(&task).map_or(Route::Here, |task| self.route(id, task, true)) {
                Route::Here => here.push(task),
                Route::To(replica) => passed.entry(replica).or_default().push(task),
            }
        }
        for (replica, tasks) in passed {
            let frame = connect_request::Frame::Status(v1::Status { tasks });
            self.tell_borrower(
                replica,
                LinkFrame::Spoke { agent: session.0, frame: Box::new(frame) },
            );
        }
        Some(connect_request::Frame::Status(v1::Status { tasks: here }))
    }

    fn pass_one(
        &mut self,
        id: AgentId,
        session: SessionId,
        frame: connect_request::Frame,
    ) -> Option<connect_request::Frame> {
        use connect_request::Frame;
        let Some(task) = about(&frame).and_then(task_of) else { return Some(frame) };
        let Route::To(replica) = self.route(id, task, true) else { return Some(frame) };
        let released = matches!(frame, Frame::Release(_));
        let passing = matches!(frame, Frame::Log(_) | Frame::OutputChunk(_) | Frame::Progress(_));
        // What only watchers see is not worth a link that cannot keep up.
        if !(passing && self.lending.is_full(replica)) {
            self.tell_borrower(
                replica,
                LinkFrame::Spoke { agent: session.0, frame: Box::new(frame) },
            );
        }
        if released {
            self.drop_stray(task);
            self.match_agent(id);
            self.schedule_agent(id);
        }
        None
    }

    /// Where a frame about a task goes; `out`: the agent works on it still.
    fn route(&mut self, id: AgentId, task: Id, out: bool) -> Route {
        let until = self.now.after(self.clocks.lease);
        if let Some(stray) = self.lending.strays.all.get_mut(&task) {
            if stray.agent == id {
                stray.until = until;
                return stray.holder.map_or(Route::Here, Route::To);
            }
            return Route::Here;
        }
        let (key, lease) = task;
        if self.tasks.contains_key(&key) || self.recent.contains(key, lease) {
            return Route::Here;
        }
        match self.lending.borrower_of(lease.epoch) {
            Some(replica) if self.add_stray(id, task, Some(replica), out) => Route::To(replica),
            _ => Route::Here,
        }
    }

    /// An agent has a task that is not known here; false when no more such tasks can be kept.
    /// Who gave it out may be linked; if not, its owner is sought.
    pub(super) fn add_stray(
        &mut self,
        id: AgentId,
        task: Id,
        holder: Option<Replica>,
        out: bool,
    ) -> bool {
        let (until, claimed_until) =
            (self.now.after(self.clocks.lease), self.now.after(self.clocks.claim));
        if self.lending.strays.all.contains_key(&task) {
            return true;
        }
        if self.lending.strays.all.len() >= limits::STRAYS_MAX {
            return false;
        }
        let stray =
            Stray { agent: id, holder, confirmed: false, out, until, claimed_until, result: None };
        self.lending.strays.all.insert(task, stray);
        if let Some(agent) = self.registry.get_mut(id) {
            agent.strays.insert(task);
        }
        if out {
            self.count_stray(id, holder, false, true);
        }
        self.schedule_lending();
        true
    }

    fn count_stray(&mut self, id: AgentId, holder: Option<Replica>, sure: bool, more: bool) {
        let Some(agent) = self.registry.get_mut(id) else { return };
        match holder {
            Some(replica) if more => {
                let loan = agent.loans.entry(replica).or_default();
                loan.out += 1;
                loan.sure += u32::from(sure);
                loan.peak = loan.peak.max(loan.out);
                self.lending.lent.insert(id);
            }
            Some(replica) => {
                if let Some(loan) = agent.loans.get_mut(&replica) {
                    loan.out = loan.out.saturating_sub(1);
                    loan.sure = loan.sure.saturating_sub(u32::from(sure));
                }
            }
            None if more => agent.sought += 1,
            None => agent.sought = agent.sought.saturating_sub(1),
        }
    }

    /// Forgets a task of another run; gives its result if it is kept.
    pub(super) fn drop_stray(&mut self, task: Id) -> Option<Box<v1::TaskResult>> {
        let stray = self.lending.strays.remove(task)?;
        if let Some(agent) = self.registry.get_mut(stray.agent) {
            agent.strays.remove(&task);
        }
        if stray.out {
            self.count_stray(stray.agent, stray.holder, stray.confirmed, false);
        }
        stray.result
    }

    /// Forgets all of an agent whose session has ended: it names them when it comes back.
    pub(super) fn drop_strays_of(&mut self, id: AgentId) {
        let Some(agent) = self.registry.get_mut(id) else { return };
        for task in std::mem::take(&mut agent.strays) {
            self.drop_stray(task);
        }
    }

    /// The agent has done a task; whether its holder knows by that that it has room.
    fn stray_settled(&mut self, task: Id) -> bool {
        let Some(stray) = self.lending.strays.all.get_mut(&task) else { return false };
        let was_out = std::mem::replace(&mut stray.out, false);
        let (agent, holder, confirmed) = (stray.agent, stray.holder, stray.confirmed);
        if was_out {
            self.count_stray(agent, holder, confirmed, false);
        }
        was_out && confirmed
    }

    fn set_holder(&mut self, task: Id, holder: Option<Replica>, confirmed: bool) {
        let claimed_until = self.now.after(self.clocks.claim);
        let Some(stray) = self.lending.strays.all.get_mut(&task) else { return };
        let (agent, before, out) = (stray.agent, (stray.holder, stray.confirmed), stray.out);
        stray.holder = holder;
        stray.confirmed = confirmed;
        stray.claimed_until = claimed_until;
        if out && before != (holder, confirmed) {
            self.count_stray(agent, before.0, before.1, false);
            self.count_stray(agent, holder, confirmed, true);
        }
    }

    /// A replica says something to one of the agents here.
    pub(super) fn deliver(
        &mut self,
        replica: Replica,
        session: SessionId,
        frame: connect_response::Frame,
    ) {
        use connect_response::Frame;
        let Some(id) = self.registry.of_session(session) else { return };
        let lendable = self.registry.get(id).is_some_and(Agent::is_lendable);
        match &frame {
            // Who is lent himself is never lent on, so nothing can go round in circles.
            Frame::Assign(_) if !lendable => return,
            Frame::Assign(assign) => {
                for task in &assign.tasks {
                    let Some(task) = task.r#ref.as_ref().and_then(task_of) else { continue };
                    self.add_stray(id, task, Some(replica), true);
                    self.set_holder(task, Some(replica), true);
                }
                self.schedule_agent(id);
            }
            Frame::ResultsAck(acks) => {
                for ack in &acks.acks {
                    // It is durable: sent again it needs not go to the owner again.
                    let closed = self.closed(id, replica, &ack.task_id, &ack.lease_token);
                    if let Some((key, lease)) = closed {
                        self.recent.insert(key, lease);
                    }
                }
            }
            Frame::LeaseLost(lost) => {
                let _ = self.closed(id, replica, &lost.task_id, &lost.lease_token);
            }
            Frame::Drain(drain) => return self.drain(id, &drain.reason.clone()),
            Frame::Proceed(_) | Frame::Cancel(_) | Frame::Fault(_) => {}
            Frame::Registered(_) | Frame::Rebalance(_) | Frame::Ping(_) | Frame::Pong(_) => return,
        }
        self.send(id, Outgoing::Passed(Box::new(frame)));
        self.match_agent(id);
    }

    /// The owner has said its last word about a task. Where it names no lease, it is about the
    /// oldest one, for an agent is told of each.
    fn closed(&mut self, id: AgentId, replica: Replica, task: &str, lease: &str) -> Option<Id> {
        let key: TaskKey = task.parse().ok()?;
        let named: Option<LeaseToken> = lease.parse().ok();
        let agent = self.registry.get(id)?;
        let first = (key, LeaseToken { epoch: 0, attempt: 0, counter: 0 });
        let leases = agent.strays.range(first..).take_while(|(of, _)| *of == key);
        let is_it = |task: &&Id| {
            let stray = self.lending.strays.all.get(task);
            let of_replica = stray.is_some_and(|stray| stray.holder == Some(replica));
            of_replica && named.is_none_or(|named| named == task.1)
        };
        let found = leases.copied().find(|task| is_it(&task))?;
        self.drop_stray(found);
        self.schedule_agent(id);
        Some(found)
    }

    /// A replica says that claimed tasks are its.
    pub(super) fn claims_held(&mut self, replica: Replica, session: SessionId, tasks: &Held) {
        let Some(id) = self.registry.of_session(session) else { return };
        for task in tasks.iter().copied() {
            let Some(stray) = self.lending.strays.all.get(&task) else { continue };
            if stray.agent != id {
                continue;
            }
            let result = stray.result.clone().filter(|_| stray.holder != Some(replica));
            self.set_holder(task, Some(replica), true);
            if self.claims.get(&task.0).is_some_and(|claim| claim.lease == task.1) {
                self.claims.remove(&task.0);
            }
            if let Some(result) = result {
                self.stray_settled(task);
                let results = v1::Results { results: vec![*result] };
                let frame = connect_request::Frame::Results(results);
                self.tell_borrower(
                    replica,
                    LinkFrame::Spoke { agent: session.0, frame: Box::new(frame) },
                );
            }
        }
    }

    /// A replica is gone: whoever takes its runs over is sought, here and elsewhere.
    pub(super) fn seek_tasks_of(&mut self, replica: Replica) {
        let of_replica = |(task, stray): (&Id, &Stray)| {
            (stray.holder == Some(replica)).then_some((stray.agent, *task))
        };
        let tasks: Vec<(AgentId, Id)> =
            self.lending.strays.all.iter().filter_map(of_replica).collect();
        self.seek(tasks);
    }

    /// Seeks the owners of tasks that agents here have.
    pub(super) fn seek(&mut self, mut tasks: Vec<(AgentId, Id)>) {
        tasks.sort_unstable();
        let mut by_agent: BTreeMap<AgentId, Held> = BTreeMap::new();
        for (agent, task) in tasks {
            self.set_holder(task, None, false);
            self.remember_claim(agent, task.0, task.1);
            by_agent.entry(agent).or_default().push(task);
        }
        let replicas: Vec<Replica> = self.lending.borrowers.keys().copied().collect();
        for (agent, tasks) in by_agent {
            let session = self.registry.get(agent).and_then(|agent| agent.session.as_ref());
            let Some(handle) = session.map(|session| session.id.0) else { continue };
            for replica in &replicas {
                let tasks = tasks.clone();
                self.tell_borrower(*replica, LinkFrame::Claims { agent: handle, tasks });
            }
        }
    }

    /// A task is not of a run here any more: its agent, if it is connected here, goes on with it.
    pub(super) fn leave_to(&mut self, id: AgentId, task: Id, out: bool) {
        if !self.registry.get(id).is_some_and(Agent::is_connected) {
            return;
        }
        if self.add_stray(id, task, None, out) {
            self.seek(vec![(id, task)]);
        }
    }

    /// An agent that is connected here claims a task that is not known here. Who gave it out is
    /// asked if it is linked, otherwise its owner is sought; false when it cannot be remembered.
    pub(super) fn claim_unknown(&mut self, id: AgentId, task: Id) -> bool {
        let holder = self.lending.borrower_of(task.1.epoch);
        let is_connected = self.registry.get(id).is_some_and(Agent::is_connected);
        if is_connected && !self.add_stray(id, task, holder, true) {
            return false;
        }
        (is_connected && holder.is_some()) || self.remember_claim(id, task.0, task.1)
    }

    /// A claimed task turned out to be of a run here: its result, if it came before, is heard.
    pub(super) fn take_in_stray(&mut self, id: AgentId, task: Id) {
        let Some(result) = self.drop_stray(task) else { return };
        let results = v1::Results { results: vec![*result] };
        for frame in convert::incoming(connect_request::Frame::Results(results)) {
            self.hear_one(id, frame);
        }
    }

    /// Forgets what was not heard of for long, and gives up claims that nobody took.
    pub(super) fn tick_strays(&mut self) {
        let now = self.now;
        let over = |stray: &Stray| {
            let unclaimed = stray.holder.is_some() && !stray.confirmed;
            stray.until <= now || (unclaimed && stray.claimed_until <= now)
        };
        let due = self.lending.strays.all.iter().filter(|(_, stray)| over(stray));
        let mut due: Vec<(AgentId, Id)> = due.map(|(task, stray)| (stray.agent, *task)).collect();
        due.sort_unstable();
        for (agent, task) in due {
            self.drop_stray(task);
            let reason = "nobody knows this task";
            let (key, lease) = task;
            self.send(agent, Outgoing::LeaseLost { key, lease: Some(lease), reason });
            self.match_agent(agent);
            self.schedule_agent(agent);
        }
    }
}

/// The task that a frame is about; those of several tasks are taken apart elsewhere.
fn about(frame: &connect_request::Frame) -> Option<&v1::TaskRef> {
    use connect_request::Frame;
    match frame {
        Frame::Accepted(it) => it.task.as_ref(),
        Frame::Progress(it) => it.task.as_ref(),
        Frame::Log(it) => it.task.as_ref(),
        Frame::OutputChunk(it) => it.task.as_ref(),
        Frame::Checkpoint(it) => it.task.as_ref(),
        Frame::ExtendLease(it) => it.task.as_ref(),
        Frame::Release(it) => it.task.as_ref(),
        Frame::Register(_)
        | Frame::Credits(_)
        | Frame::Results(_)
        | Frame::Status(_)
        | Frame::DrainRequested(_)
        | Frame::Pong(_)
        | Frame::Emit(_)
        | Frame::Ping(_) => None,
    }
}
