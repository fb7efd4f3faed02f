//! Lends agents that are connected here to other replicas. What an agent has room for goes at
//! once to whoever has something waiting; where several have, those whose tasks have waited
//! longer get more of it, and nobody gets nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::Instant;

use super::super::lending::{FromBorrower, LinkFrame, Replica, Want};
use super::super::registry::{Agent, AgentId, LaneId};
use super::super::session::SessionId;
use super::Matcher;
use super::borrow::{Lender, Sources};
use super::lanes;
use super::strays::Strays;
use crate::limits;

/// What is lent and borrowed.
#[derive(Debug, Default)]
pub(super) struct Lending {
    pub(super) borrowers: BTreeMap<Replica, Borrower>,
    pub(super) lenders: BTreeMap<Replica, Lender>,
    pub(super) links: BTreeMap<SessionId, (Replica, Side)>,
    pub(super) sources: Sources,
    pub(super) strays: Strays,
    /// The agents of which something is lent.
    pub(super) lent: BTreeSet<AgentId>,
    /// What this replica has had of contested credits.
    own_pass: u64,
    virtual_time: u64,
    /// When unused credits are looked for next.
    pub(super) ticks_at: Option<Instant>,
}

/// Which end of a link this replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Lends,
    Borrows,
}

/// A replica that borrows.
#[derive(Debug)]
pub(super) struct Borrower {
    link: SessionId,
    pub(super) epoch: u64,
    outbox: VecDeque<LinkFrame>,
    /// The serial of the last credits that it was told.
    serial: u64,
    wants: BTreeMap<LaneId, Open>,
    /// Credits given for what it wants that it had not seen when it said so.
    granted: VecDeque<(u64, LaneId, u32)>,
    untold: Vec<(AgentId, LaneId, u32)>,
    /// Agents whose credits it must be told.
    changed: BTreeSet<AgentId>,
    /// Agents whose credits it was asked for.
    lowering: BTreeSet<AgentId>,
    /// What it has had of contested credits.
    pass: u64,
}

/// What a borrower wants of one lane.
#[derive(Clone, Copy, Debug)]
struct Open {
    waiting: u32,
    granted: u32,
    level: u8,
    since: Instant,
}

impl Open {
    fn count(&self) -> u32 {
        self.waiting.saturating_sub(self.granted)
    }
}

/// Who could use a credit.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// `None`: this replica.
    who: Option<Replica>,
    lane: LaneId,
    count: u32,
    level: u8,
    since: Instant,
}

impl Borrower {
    fn is_full(&self) -> bool {
        self.outbox.len() >= limits::LINK_FRAMES_FULL
    }

    /// What was to be lent of an agent is not, after all.
    fn take_back(&mut self, id: AgentId) {
        for (_, lane, count) in self.untold.extract_if(.., |(of, _, _)| *of == id) {
            if let Some(open) = self.wants.get_mut(&lane) {
                open.granted = open.granted.saturating_sub(count);
            }
        }
    }
}

impl Matcher {
    /// A replica opens a link, in place of the one it had, to borrow agents.
    pub(crate) fn borrower_joined(&mut self, replica: Replica, epoch: u64) -> SessionId {
        if let Some(old) = self.lending.borrowers.get(&replica).map(|old| old.link) {
            self.link_gone(old);
        }
        let link = SessionId(self.registry.next_id());
        let borrower = Borrower {
            link,
            epoch,
            outbox: VecDeque::new(),
            serial: 0,
            wants: BTreeMap::new(),
            granted: VecDeque::new(),
            untold: Vec::new(),
            changed: BTreeSet::new(),
            lowering: BTreeSet::new(),
            pass: 0,
        };
        self.lending.borrowers.insert(replica, borrower);
        self.lending.links.insert(link, (replica, Side::Lends));
        let agents: Vec<AgentId> = self.registry.in_order().map(|agent| agent.id).collect();
        agents.into_iter().for_each(|id| self.offer(replica, id));
        link
    }

    /// A link has ended; false when it was not there any more.
    pub(crate) fn link_gone(&mut self, link: SessionId) -> bool {
        let Some((replica, side)) = self.lending.links.remove(&link) else { return false };
        self.effects.wake.push(link);
        match side {
            Side::Lends => self.borrower_gone(replica),
            Side::Borrows => self.lender_gone(replica),
        }
        true
    }

    fn borrower_gone(&mut self, replica: Replica) {
        let Some(borrower) = self.lending.borrowers.remove(&replica) else { return };
        borrower.wants.into_keys().for_each(|lane| self.lanes.leave(lane));
        self.seek_tasks_of(replica);
        let lent: Vec<AgentId> = self.lending.lent.iter().copied().collect();
        for id in lent {
            let Some(agent) = self.registry.get_mut(id) else { continue };
            if agent.loans.remove(&replica).is_some() {
                self.forget_loans_over(id);
                self.match_agent(id);
            }
        }
    }

    /// Replicas that are not among these live no more: nothing is lent to them.
    pub(crate) fn lend_only_to(&mut self, live: &[Replica]) {
        let borrowers = self.lending.borrowers.iter();
        let gone = borrowers.filter(|(replica, _)| !live.contains(replica));
        let gone: Vec<SessionId> = gone.map(|(_, borrower)| borrower.link).collect();
        gone.into_iter().for_each(|link| {
            self.link_gone(link);
        });
    }

    /// All links end: the runs here may be another's.
    pub(crate) fn leave_links(&mut self) {
        let links: Vec<SessionId> = self.lending.links.keys().copied().collect();
        links.into_iter().for_each(|link| {
            self.link_gone(link);
        });
    }

    /// A borrower has sent frames; false when the link is not there any more.
    pub(crate) fn hear_borrower(&mut self, link: SessionId, frames: Vec<FromBorrower>) -> bool {
        for frame in frames {
            let Some((replica, Side::Lends)) = self.lending.links.get(&link).copied() else {
                return false;
            };
            match frame {
                FromBorrower::Wants { wants, seen } => self.hear_wants(replica, wants, seen),
                FromBorrower::Seen(serial) => self.credits_seen(replica, serial),
                FromBorrower::Deliver { agent, frame } => {
                    self.deliver(replica, SessionId(agent), frame);
                }
                FromBorrower::Held { agent, tasks } => {
                    self.claims_held(replica, SessionId(agent), &tasks);
                }
            }
        }
        true
    }

    /// What a link is to send; `None` when it has ended. Frames that act for runs are dropped
    /// unless `may_act`.
    pub(crate) fn take_link(&mut self, link: SessionId, may_act: bool) -> Option<Vec<LinkFrame>> {
        match *self.lending.links.get(&link)? {
            (replica, Side::Lends) => Some(self.take_lending(replica)),
            (replica, Side::Borrows) => Some(self.take_borrowing(replica, may_act)),
        }
    }

    fn take_lending(&mut self, replica: Replica) -> Vec<LinkFrame> {
        let Some(borrower) = self.lending.borrowers.get_mut(&replica) else { return Vec::new() };
        let mut frames = Vec::new();
        // Credits go ahead of what agents said: a credit that is not lent on must not be used
        // again when the result that frees it comes.
        for id in std::mem::take(&mut borrower.changed) {
            let agent = self.registry.get_mut(id);
            let told = agent.and_then(|agent| {
                let handle = agent.session.as_ref()?.id.0;
                let loan = agent.loans.get_mut(&replica)?;
                Some((handle, loan.tell(borrower.serial + 1)?, loan.is_lowering()))
            });
            let Some((handle, levels, is_lowering)) = told else {
                borrower.take_back(id);
                continue;
            };
            borrower.serial += 1;
            if is_lowering {
                borrower.lowering.insert(id);
            }
            frames.push(LinkFrame::Lent {
                agent: handle,
                serial: borrower.serial,
                total: levels.total,
                per_action: levels.limited,
            });
        }
        let serial = borrower.serial;
        let untold = borrower.untold.drain(..).map(|(_, lane, count)| (serial, lane, count));
        borrower.granted.extend(untold);
        let was_full = borrower.is_full();
        let count = borrower.outbox.len().min(limits::LINK_FRAMES_TAKEN);
        frames.extend(borrower.outbox.drain(..count));
        if was_full && !borrower.is_full() {
            self.lend_waiting(replica);
        }
        frames
    }

    /// Tells a borrower something; one that does not read is given up.
    pub(super) fn tell_borrower(&mut self, replica: Replica, frame: LinkFrame) {
        let Some(borrower) = self.lending.borrowers.get_mut(&replica) else { return };
        borrower.outbox.push_back(frame);
        let (link, clogged) = (borrower.link, borrower.outbox.len() > limits::LINK_FRAMES_MAX);
        self.effects.wake.push(link);
        if clogged {
            tracing::warn!(%replica, "a replica does not read what agents say; its link is closed");
            self.link_gone(link);
        }
    }

    fn tell_borrowers(&mut self, frame: impl Fn() -> LinkFrame) {
        let replicas: Vec<Replica> = self.lending.borrowers.keys().copied().collect();
        replicas.into_iter().for_each(|replica| self.tell_borrower(replica, frame()));
    }

    /// Shows an agent of this replica to a borrower.
    fn offer(&mut self, replica: Replica, id: AgentId) {
        let Some(agent) = self.registry.get(id) else { return };
        let Some(session) = agent.session.as_ref().filter(|session| !session.lent) else { return };
        let claims = self.lending.strays.claims(agent, replica);
        let frame = LinkFrame::Offered {
            agent: session.id.0,
            registration: agent.registration.clone(),
            claims,
            closed: !agent.is_open() || session.polls,
        };
        self.tell_borrower(replica, frame);
    }

    /// An agent has opened a session here.
    pub(super) fn offer_to_all(&mut self, id: AgentId) {
        let replicas: Vec<Replica> = self.lending.borrowers.keys().copied().collect();
        replicas.into_iter().for_each(|replica| self.offer(replica, id));
    }

    /// A session of an agent of this replica has ended.
    pub(super) fn withdraw_offer(&mut self, id: AgentId, session: SessionId) {
        self.drop_strays_of(id);
        if let Some(agent) = self.registry.get_mut(id) {
            agent.loans.clear();
        }
        self.lending.lent.remove(&id);
        self.tell_borrowers(|| LinkFrame::Withdrawn { agent: session.0 });
    }

    /// An agent takes new tasks, or does not any more: what it lent goes with that.
    pub(super) fn opened_or_closed(&mut self, id: AgentId) {
        if self.lending.borrowers.is_empty() {
            return;
        }
        let Some(agent) = self.registry.get_mut(id) else { return };
        let Some(session) = agent.session.as_ref().filter(|session| !session.lent) else { return };
        let (handle, closed) = (session.id.0, !agent.is_open() || session.polls);
        if closed {
            self.lower_all(id);
        }
        self.tell_borrowers(|| LinkFrame::Changed { agent: handle, closed });
    }

    fn lower_all(&mut self, id: AgentId) {
        let Some(agent) = self.registry.get(id) else { return };
        let loans: Vec<(Replica, u32)> =
            agent.loans.iter().map(|(replica, loan)| (*replica, loan.level())).collect();
        loans.into_iter().for_each(|(replica, level)| self.lower(id, replica, level));
    }

    /// The agent has changed its credits: what is lent must fit into them.
    pub(super) fn fit_loans(&mut self, id: AgentId) {
        let Some(agent) = self.registry.get_mut(id) else { return };
        if agent.loans.is_empty() {
            return;
        }
        let limited: Vec<_> = agent.credits.per_action.keys().cloned().collect();
        agent.loans.values_mut().for_each(|loan| loan.limit(limited.iter()));
        let replicas: Vec<Replica> = agent.loans.keys().copied().collect();
        for replica in replicas {
            let Some(agent) = self.registry.get(id) else { return };
            let returning: u32 = agent.loans.values().map(|loan| loan.returning()).sum();
            let taken = u32::try_from(agent.taken()).unwrap_or(u32::MAX);
            let over = taken.saturating_sub(agent.credits.total).saturating_sub(returning);
            self.lower(id, replica, over);
        }
    }

    fn lower(&mut self, id: AgentId, replica: Replica, count: u32) {
        let Some(agent) = self.registry.get_mut(id) else { return };
        let Some(loan) = agent.loans.get_mut(&replica) else { return };
        loan.lower(count);
        self.loan_changed(id, replica);
    }

    fn loan_changed(&mut self, id: AgentId, replica: Replica) {
        let Some(borrower) = self.lending.borrowers.get_mut(&replica) else { return };
        borrower.changed.insert(id);
        self.effects.wake.push(borrower.link);
    }

    fn raise(&mut self, id: AgentId, replica: Replica, lane: LaneId, count: u32) {
        let action = self.lanes.get(lane).map(|lane| lane.needs.action.clone());
        let Some(agent) = self.registry.get_mut(id) else { return };
        let limited = action.filter(|action| agent.credits.per_action.contains_key(action));
        let loan = agent.loans.entry(replica).or_default();
        if loan.level() == 0 {
            loan.limit(agent.credits.per_action.keys());
        }
        loan.raise(count, limited.as_ref());
        self.lending.lent.insert(id);
        if let Some(borrower) = self.lending.borrowers.get_mut(&replica) {
            borrower.untold.push((id, lane, count));
            if let Some(open) = borrower.wants.get_mut(&lane) {
                open.granted += count;
            }
        }
        self.schedule_lending();
        self.loan_changed(id, replica);
    }

    fn hear_wants(&mut self, replica: Replica, wants: Vec<Want>, seen: u64) {
        let lanes: Vec<(LaneId, Want)> = wants
            .into_iter()
            .map(|want| (self.lanes.enter_needs(want.needs.clone(), &mut self.registry), want))
            .collect();
        let now = self.now;
        let Some(borrower) = self.lending.borrowers.get_mut(&replica) else { return };
        borrower.granted.retain(|(serial, _, _)| *serial > seen);
        let told = borrower.granted.iter().map(|(_, lane, count)| (*lane, *count));
        let untold = borrower.untold.iter().map(|(_, lane, count)| (*lane, *count));
        let granted: Vec<(LaneId, u32)> = told.chain(untold).collect();
        let open = |lane: LaneId, want: &Want| Open {
            waiting: want.waiting,
            granted: granted.iter().filter(|(of, _)| *of == lane).map(|(_, count)| count).sum(),
            level: want.level,
            since: want.since.min(now),
        };
        let wants = lanes.iter().map(|(lane, want)| (*lane, open(*lane, want))).collect();
        let before = std::mem::replace(&mut borrower.wants, wants);
        before.into_keys().for_each(|lane| self.lanes.leave(lane));
        self.lend_waiting(replica);
        self.credits_seen(replica, seen);
    }

    /// Lends what is free for what a borrower wants. Nothing waits here that could use it.
    fn lend_waiting(&mut self, replica: Replica) {
        let Some(borrower) = self.lending.borrowers.get(&replica) else { return };
        if borrower.is_full() {
            return;
        }
        let mut lanes: Vec<(LaneId, Open)> =
            borrower.wants.iter().map(|(lane, open)| (*lane, *open)).collect();
        lanes.retain(|(_, open)| open.count() > 0);
        lanes.sort_by_key(|(_, open)| (std::cmp::Reverse(open.level), open.since));
        for (lane, open) in lanes {
            let left = self.lend_free(replica, lane, open.count());
            if left > 0 {
                self.recall(lane, left, Some(replica));
            }
        }
    }

    /// Lends of the agents of a lane what is free, shared out among them; says how much was
    /// wanted in vain.
    fn lend_free(&mut self, replica: Replica, id: LaneId, count: u32) -> u32 {
        let Some(lane) = self.lanes.get(id) else { return count };
        if lane.is_full() {
            return count;
        }
        let action = &lane.needs.action;
        let preferred = lanes::present_preferred(lane, &self.registry);
        let free = |id: &AgentId| {
            let agent = self.registry.get(*id)?;
            let fits = preferred.is_none_or(|preferred| preferred == agent.id);
            let can = fits && agent.is_lendable() && agent.can_take(action, self.now);
            can.then(|| (agent.id, agent.free(action)))
        };
        // Some more than are needed are looked at, so that no agent gets all.
        let enough = limits::AGENTS_COMPARED.max(2 * count as usize);
        let free: Vec<(AgentId, u32)> = lane
            .agents
            .iter()
            .filter_map(free)
            .filter(|(_, free)| *free > 0)
            .take(enough)
            .collect();
        let mut all: u64 = free.iter().map(|(_, free)| u64::from(*free)).sum();
        let mut left = u64::from(count).min(all);
        let lent = left;
        for (id_of, free) in free {
            // Rounded up, so that the first get what cannot be divided.
            let share =
                (left * u64::from(free)).div_ceil(all.max(1)).min(u64::from(free)).min(left);
            all -= u64::from(free);
            left -= share;
            let share = u32::try_from(share).unwrap_or(free);
            if share > 0 {
                self.raise(id_of, replica, id, share);
            }
        }
        count.saturating_sub(u32::try_from(lent).unwrap_or(u32::MAX))
    }

    /// Asks back credits that are lent and not used, for `count` tasks that wait in a lane.
    pub(super) fn recall(&mut self, lane: LaneId, count: u32, except: Option<Replica>) {
        let serves = |agent: &&Agent| agent.lanes.binary_search(&lane).is_ok();
        let agents = self.lending.lent.iter().filter_map(|id| self.registry.get(*id));
        let mut needed = count;
        let mut idle: Vec<(AgentId, Replica, u32)> = Vec::new();
        for agent in agents.filter(serves) {
            for (replica, loan) in agent.loans.iter().filter(|(it, _)| Some(**it) != except) {
                needed = needed.saturating_sub(loan.returning());
                idle.push((agent.id, *replica, loan.idle()));
            }
        }
        for (id, replica, idle) in idle {
            let count = idle.min(needed);
            if count > 0 {
                needed -= count;
                self.lower(id, replica, count);
            }
        }
    }

    fn credits_seen(&mut self, replica: Replica, serial: u64) {
        let Some(borrower) = self.lending.borrowers.get_mut(&replica) else { return };
        let lowering: Vec<AgentId> = borrower.lowering.iter().copied().collect();
        for id in lowering {
            let Some(agent) = self.registry.get_mut(id) else { continue };
            let loan = agent.loans.get_mut(&replica);
            let (came, more) =
                loan.map_or((false, false), |it| (it.seen(serial), it.is_lowering()));
            if !more && let Some(borrower) = self.lending.borrowers.get_mut(&replica) {
                borrower.lowering.remove(&id);
            }
            if came {
                self.forget_loans_over(id);
                self.match_agent(id);
            }
        }
    }

    pub(super) fn forget_loans_over(&mut self, id: AgentId) {
        let Some(agent) = self.registry.get_mut(id) else { return };
        agent.loans.retain(|_, loan| !loan.is_over());
        if agent.loans.is_empty() {
            self.lending.lent.remove(&id);
        }
    }

    /// There is room at an agent: gives it the best of what waits here, or lends it.
    pub(super) fn match_agent(&mut self, id: AgentId) {
        if self.lending.borrowers.is_empty() {
            while let Some(head) = self.best_for(id, true) {
                self.assign(head.key, id);
            }
        } else {
            self.match_or_lend(id);
        }
        if self.registry.get(id).is_some_and(Agent::has_room) {
            self.lanes.reopen(id, &self.registry);
        }
    }

    fn match_or_lend(&mut self, id: AgentId) {
        loop {
            let head = self.best_for(id, true);
            let own = head.map(|head| Candidate {
                who: None,
                lane: LaneId(0),
                count: 1,
                level: head.level,
                since: head.place.0,
            });
            let candidates: Vec<Candidate> = own.into_iter().chain(self.wanted(id, true)).collect();
            let Some(winner) = self.lending.choose(&candidates, self.now) else { return };
            self.lending.charge(&candidates, winner.who, self.now);
            match (winner.who, head) {
                (Some(replica), _) => {
                    let alone = candidates.len() == 1;
                    let count = if alone { self.room_for(id, winner) } else { 1 };
                    self.raise(id, replica, winner.lane, count);
                }
                (None, Some(head)) => self.assign(head.key, id),
                (None, None) => return,
            }
        }
    }

    fn room_for(&self, id: AgentId, wanted: Candidate) -> u32 {
        let action = self.lanes.get(wanted.lane).map(|lane| &lane.needs.action);
        let free = self.registry.get(id).zip(action).map(|(agent, action)| agent.free(action));
        free.unwrap_or(1).min(wanted.count).max(1)
    }

    /// A borrower's task has come to its end at an agent: its credit stays lent, unless it is
    /// the turn of somebody else who has waited.
    pub(super) fn reconsider(&mut self, id: AgentId, replica: Replica) {
        let head = self.best_for(id, false);
        let wanted = self.wanted(id, false);
        if head.is_none() && wanted.iter().all(|wanted| wanted.who == Some(replica)) {
            return;
        }
        let own = head.map(|head| Candidate {
            who: None,
            lane: LaneId(0),
            count: 1,
            level: head.level,
            since: head.place.0,
        });
        let candidates: Vec<Candidate> = own.into_iter().chain(wanted).collect();
        let Some(winner) = self.lending.choose(&candidates, self.now) else { return };
        if winner.who == Some(replica) {
            self.lending.charge(&candidates, winner.who, self.now);
            return;
        }
        let Some(agent) = self.registry.get_mut(id) else { return };
        let Some(loan) = agent.loans.get_mut(&replica) else { return };
        if loan.level() > 0 && !loan.keep_back() {
            loan.lower(1);
        }
        self.loan_changed(id, replica);
    }

    /// What each borrower wants most of an agent; with `room`, as far as the agent has room.
    fn wanted(&self, id: AgentId, room: bool) -> Vec<Candidate> {
        let Some(agent) = self.registry.get(id).filter(|it| it.is_lendable() && it.is_open())
        else {
            return Vec::new();
        };
        let mut candidates = Vec::new();
        for (replica, borrower) in &self.lending.borrowers {
            if borrower.wants.is_empty() || borrower.is_full() {
                continue;
            }
            let open = borrower
                .wants
                .iter()
                .filter(|(id, open)| open.count() > 0 && agent.lanes.binary_search(id).is_ok());
            let fits = open.filter(|(lane, _)| {
                self.lanes.get(**lane).is_some_and(|lane| {
                    let action = &lane.needs.action;
                    let preferred = lanes::present_preferred(lane, &self.registry);
                    preferred.is_none_or(|preferred| preferred == id)
                        && agent.breaker_permits(action, self.now)
                        && (!room || agent.can_take(action, self.now))
                })
            });
            let best = fits.min_by_key(|(_, open)| (std::cmp::Reverse(open.level), open.since));
            candidates.extend(best.map(|(lane, open)| Candidate {
                who: Some(*replica),
                lane: *lane,
                count: open.count(),
                level: open.level,
                since: open.since,
            }));
        }
        candidates
    }

    /// Credits that were not used for a while go back, so that nobody has to ask for them.
    pub(super) fn tick_loans(&mut self) {
        let lent: Vec<AgentId> = self.lending.lent.iter().copied().collect();
        for id in lent {
            let Some(agent) = self.registry.get_mut(id) else { continue };
            let mut unused = Vec::new();
            for (replica, loan) in &mut agent.loans {
                unused.push((*replica, loan.level().saturating_sub(loan.peak.max(loan.out))));
                loan.peak = loan.out;
            }
            for (replica, count) in unused.into_iter().filter(|(_, count)| *count > 0) {
                self.lower(id, replica, count);
            }
            self.forget_loans_over(id);
        }
    }
}

impl Lending {
    /// Whether a borrower takes no more than it must.
    pub(super) fn is_full(&self, replica: Replica) -> bool {
        self.borrowers.get(&replica).is_none_or(Borrower::is_full)
    }

    /// Whether no other replica is linked and none's tasks are here.
    pub(super) fn is_alone(&self) -> bool {
        self.links.is_empty() && self.strays.is_empty()
    }

    /// The borrower whose lease tokens begin with this epoch.
    pub(super) fn borrower_of(&self, epoch: u64) -> Option<Replica> {
        let found = self.borrowers.iter().find(|(_, borrower)| borrower.epoch == epoch);
        found.map(|(replica, _)| *replica)
    }

    fn pass(&self, who: Option<Replica>) -> u64 {
        let pass = match who {
            None => self.own_pass,
            Some(replica) => self.borrowers.get(&replica).map_or(0, |borrower| borrower.pass),
        };
        // Who wanted nothing for a while saves up nothing.
        pass.max(self.virtual_time)
    }

    /// Whose turn it is: of those with the highest level, who had least for its weight.
    fn choose(&self, candidates: &[Candidate], _now: Instant) -> Option<Candidate> {
        let level = candidates.iter().map(|candidate| candidate.level).max()?;
        let first = candidates.iter().filter(|candidate| candidate.level == level);
        first.min_by_key(|candidate| (self.pass(candidate.who), candidate.since)).copied()
    }

    /// Somebody got a credit that others wanted too.
    fn charge(&mut self, candidates: &[Candidate], who: Option<Replica>, now: Instant) {
        const STRIDE: u64 = 1_000_000;
        if candidates.len() < 2 {
            return;
        }
        let age = |candidate: &Candidate| {
            u64::try_from(now.since(candidate.since).as_micros()).unwrap_or(u64::MAX)
        };
        let oldest = candidates.iter().map(age).max().unwrap_or(0).max(1);
        let own = candidates.iter().find(|it| it.who == who).map_or(0, age);
        let weight = (own.saturating_mul(limits::LENDING_WEIGHT_MAX) / oldest).max(1);
        let pass = self.pass(who);
        self.virtual_time = pass;
        let after = pass + STRIDE / weight;
        match who {
            None => self.own_pass = after,
            Some(replica) => {
                if let Some(borrower) = self.borrowers.get_mut(&replica) {
                    borrower.pass = after;
                }
            }
        }
    }
}
