//! Agents of other replicas: known here as their lenders show them, with the credits that are
//! lent, and never lent on. An agent is the same by type and instance, wherever it connects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use engine::Instant;

use super::super::card::Registration;
use super::super::lending::{FromLender, Held, LinkFrame, Replica, Want};
use super::super::registry::{Agent, AgentId, Credits};
use super::super::session::{Outgoing, SessionId};
use super::Matcher;
use super::lend::Side;
use crate::limits;

type Name = (Arc<str>, Arc<str>);

/// The agents that other replicas show, by name; the one shown last is used.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<Name, Vec<Source>>);

/// An agent as a lender shows it.
#[derive(Clone, Debug)]
struct Source {
    replica: Replica,
    handle: u64,
    registration: Arc<Registration>,
    closed: bool,
    credits: Credits,
}

/// A replica that lends.
#[derive(Debug)]
pub(super) struct Lender {
    link: SessionId,
    outbox: VecDeque<LinkFrame>,
    agents: HashMap<u64, Name>,
    /// The serial of the last credits that came.
    seen: u64,
    told: Vec<Want>,
    /// What waits has changed since.
    changed: bool,
    /// To be told again even if it is the same: it does not know yet what its credits did.
    again: bool,
    /// It is not told again before.
    wants_at: Instant,
}

impl Sources {
    fn of(&mut self, name: &Name, replica: Replica, handle: u64) -> Option<&mut Source> {
        let sources = self.0.get_mut(name)?;
        sources.iter_mut().find(|it| it.replica == replica && it.handle == handle)
    }

    fn remove(&mut self, name: &Name, replica: Replica, handle: u64) {
        let Some(sources) = self.0.get_mut(name) else { return };
        sources.retain(|it| it.replica != replica || it.handle != handle);
        if sources.is_empty() {
            self.0.remove(name);
        }
    }

    pub(super) fn has(&self, name: &Name) -> bool {
        self.0.contains_key(name)
    }
}

impl Matcher {
    /// A link to a replica is open, in place of the one that was, to borrow its agents.
    pub(crate) fn lender_joined(&mut self, replica: Replica) -> SessionId {
        if let Some(old) = self.lending.lenders.get(&replica).map(|old| old.link) {
            self.link_gone(old);
        }
        let link = SessionId(self.registry.next_id());
        let lender = Lender {
            link,
            outbox: VecDeque::new(),
            agents: HashMap::new(),
            seen: 0,
            told: Vec::new(),
            changed: true,
            again: false,
            wants_at: self.now,
        };
        self.lending.lenders.insert(replica, lender);
        self.lending.links.insert(link, (replica, Side::Borrows));
        link
    }

    pub(super) fn lender_gone(&mut self, replica: Replica) {
        let Some(lender) = self.lending.lenders.remove(&replica) else { return };
        let mut agents: Vec<(u64, Name)> = lender.agents.into_iter().collect();
        agents.sort_unstable();
        for (handle, name) in agents {
            self.lending.sources.remove(&name, replica, handle);
            if let Some(id) = self.attached(&name, replica, handle) {
                // Its agent may live: what it has not accepted yet it may say that it has.
                self.end_session(id);
                self.left(id);
            }
        }
    }

    /// The agent of this name, if it is reached by this showing of it.
    fn attached(&self, name: &Name, replica: Replica, handle: u64) -> Option<AgentId> {
        let id = self.registry.by_name.get(name)?;
        let agent = self.registry.get(*id)?;
        let session = agent.session.as_ref()?;
        let is_it = agent.lender == Some(replica) && session.token.parse() == Ok(handle);
        (is_it && session.lent).then_some(*id)
    }

    /// A lender has sent frames; false when the link is not there any more.
    pub(crate) fn hear_lender(&mut self, link: SessionId, frames: Vec<FromLender>) -> bool {
        for frame in frames {
            let Some((replica, Side::Borrows)) = self.lending.links.get(&link).copied() else {
                return false;
            };
            match frame {
                FromLender::Offered { agent, registration, closed } => {
                    self.offered(replica, agent, *registration, closed);
                }
                FromLender::Changed { agent, closed } => self.changed(replica, agent, closed),
                FromLender::Withdrawn { agent } => self.withdrawn(replica, agent),
                FromLender::Lent { agent, serial, total, per_action } => {
                    let per_action = per_action.into_iter().collect();
                    self.credits_lent(replica, agent, serial, Credits { total, per_action });
                }
                FromLender::Spoke { agent, frames } => {
                    let Some(id) = self.shown(replica, agent) else { continue };
                    if let Some(agent) = self.registry.get_mut(id) {
                        agent.last_heard = self.now;
                    }
                    frames.into_iter().for_each(|frame| self.hear_one(id, frame));
                    self.schedule_agent(id);
                }
                FromLender::Claims { agent, tasks } => {
                    if let Some(id) = self.shown(replica, agent) {
                        self.claimed(id, replica, agent, &tasks);
                    }
                }
            }
        }
        true
    }

    fn name_of(&self, replica: Replica, handle: u64) -> Option<Name> {
        self.lending.lenders.get(&replica)?.agents.get(&handle).cloned()
    }

    /// The agent that a lender means, by whatever way it is reached now.
    fn shown(&self, replica: Replica, handle: u64) -> Option<AgentId> {
        let name = self.name_of(replica, handle)?;
        self.registry.by_name.get(&name).copied()
    }

    fn offered(
        &mut self,
        replica: Replica,
        handle: u64,
        mut registration: Registration,
        closed: bool,
    ) {
        let name = (registration.agent_type.clone(), registration.instance.clone());
        let Some(lender) = self.lending.lenders.get_mut(&replica) else { return };
        lender.agents.insert(handle, name.clone());
        let claims = std::mem::take(&mut registration.claims);
        self.cards.share(&mut registration);
        let registration = Arc::new(registration);
        let credits = Credits::default();
        let source = Source { replica, handle, registration, closed, credits };
        let successor_of = source.registration.session_token.clone();
        self.lending.sources.0.entry(name.clone()).or_default().push(source.clone());
        let known = self.registry.by_name.get(&name).and_then(|id| self.registry.get(*id));
        let own = known.and_then(|agent| agent.session.as_ref()).filter(|it| !it.lent);
        // An agent that is connected here is not another's, unless it has moved there since.
        if own.is_none_or(|own| *own.token == *successor_of) {
            self.attach(&source);
            if let Some(id) = self.attached(&name, replica, handle) {
                self.claimed(id, replica, handle, &claims);
                self.lose_unnamed(id, &claims);
                self.match_agent(id);
            }
        }
    }

    /// From now on the agent is reached by what a lender shows.
    fn attach(&mut self, source: &Source) {
        let registration = source.registration.clone();
        let name = (registration.agent_type.clone(), registration.instance.clone());
        let id = match self.registry.by_name.get(&name) {
            Some(id) => *id,
            None => self.add_agent(&registration),
        };
        self.end_session(id);
        let handle: Arc<str> = source.handle.to_string().into();
        self.renew(id, registration, &handle);
        let link = self.lending.lenders.get(&source.replica);
        let choked = link.is_some_and(Lender::is_full);
        let session = SessionId(self.registry.next_id());
        let mut session = self.new_session(session, handle, std::time::Duration::MAX, false);
        session.lent = true;
        session.choked = choked;
        if let Some(agent) = self.registry.get_mut(id) {
            agent.lender = Some(source.replica);
            agent.credits = source.credits.clone();
            agent.draining = source.closed;
        }
        self.registry.open(id, session);
        self.lanes.refresh(id, &mut self.registry);
        self.wants_changed();
        self.schedule_agent(id);
    }

    /// The agent is not reached as it was: another way is taken if there is one.
    pub(super) fn left(&mut self, id: AgentId) {
        let Some(name) = self.registry.get(id).map(Agent::name) else { return };
        let last = self.lending.sources.0.get(&name).and_then(|sources| sources.last()).cloned();
        if let Some(source) = last {
            self.attach(&source);
            self.match_agent(id);
        } else {
            self.match_lanes_preferring(id);
            if self.registry.get(id).is_some_and(Agent::is_gone) {
                self.remove_agent(id);
            }
        }
    }

    fn changed(&mut self, replica: Replica, handle: u64, closed: bool) {
        let Some(name) = self.name_of(replica, handle) else { return };
        if let Some(source) = self.lending.sources.of(&name, replica, handle) {
            source.closed = closed;
        }
        let Some(id) = self.attached(&name, replica, handle) else { return };
        if let Some(agent) = self.registry.get_mut(id) {
            agent.draining = closed;
        }
        if closed {
            self.match_lanes_preferring(id);
        } else {
            self.match_agent(id);
        }
    }

    fn withdrawn(&mut self, replica: Replica, handle: u64) {
        let Some(lender) = self.lending.lenders.get_mut(&replica) else { return };
        let Some(name) = lender.agents.remove(&handle) else { return };
        let attached = self.attached(&name, replica, handle);
        self.lending.sources.remove(&name, replica, handle);
        let session = attached.and_then(|id| self.registry.get(id)?.session.as_ref());
        if let Some(session) = session.map(|session| session.id) {
            self.gone(session);
        }
    }

    fn credits_lent(&mut self, replica: Replica, handle: u64, serial: u64, credits: Credits) {
        let mut id = None;
        if let Some(name) = self.name_of(replica, handle) {
            if let Some(source) = self.lending.sources.of(&name, replica, handle) {
                source.credits = credits.clone();
            }
            id = self.attached(&name, replica, handle);
            if let Some(agent) = id.and_then(|id| self.registry.get_mut(id)) {
                agent.credits = credits;
            }
        }
        // Of an agent that is gone too, else what was lent of it would be on its way for ever.
        if let Some(lender) = self.lending.lenders.get_mut(&replica) {
            lender.seen = serial;
            lender.again = true;
            // Behind everything that was given out under the credits before.
            if let Some(LinkFrame::Seen(last)) = lender.outbox.back_mut() {
                *last = serial;
            } else {
                lender.outbox.push_back(LinkFrame::Seen(serial));
            }
            self.effects.wake.push(lender.link);
        }
        if let Some(id) = id {
            self.match_agent(id);
        }
        if self.has_wanted() {
            self.wants_changed();
        }
    }

    /// An agent of a lender claims tasks: those that are of runs here stay with it.
    fn claimed(&mut self, id: AgentId, replica: Replica, handle: u64, claims: &Held) {
        let mut held = Held::new();
        for (key, lease) in claims.iter().copied() {
            let kept = self.keeps(id, key, lease);
            let known = self.tasks.contains_key(&key) || self.recent.contains(key, lease);
            if kept && known {
                held.push((key, lease));
            } else if known {
                let reason = "the task is another's, or has ended";
                self.tell_lender(
                    replica,
                    LinkFrame::Deliver {
                        agent: handle,
                        frame: Outgoing::LeaseLost { key, lease: Some(lease), reason },
                    },
                );
            }
        }
        if !held.is_empty() {
            self.tell_lender(replica, LinkFrame::Held { agent: handle, tasks: held });
        }
    }

    /// A claim that had to wait for its order is good: the lender passes on what its agent says.
    pub(super) fn tell_held(&mut self, id: AgentId, task: Held) {
        let Some((replica, handle)) = self.way_to(id) else { return };
        self.tell_lender(replica, LinkFrame::Held { agent: handle, tasks: task });
    }

    /// By whom an agent is lent, and how it is called there.
    fn way_to(&self, id: AgentId) -> Option<(Replica, u64)> {
        let agent = self.registry.get(id)?;
        let session = agent.session.as_ref().filter(|session| session.lent)?;
        Some((agent.lender?, session.token.parse().ok()?))
    }

    /// Sends a frame to an agent that is lent; gives it back when the agent is not.
    pub(super) fn send_by_link(&mut self, id: AgentId, frame: Outgoing) -> Option<Outgoing> {
        let Some((replica, agent)) = self.way_to(id) else { return Some(frame) };
        self.tell_lender(replica, LinkFrame::Deliver { agent, frame });
        None
    }

    fn tell_lender(&mut self, replica: Replica, frame: LinkFrame) {
        let Some(lender) = self.lending.lenders.get_mut(&replica) else { return };
        lender.outbox.push_back(frame);
        let (link, count) = (lender.link, lender.outbox.len());
        self.effects.wake.push(link);
        if count == limits::LINK_FRAMES_FULL {
            self.choke(replica, true);
        } else if count > limits::LINK_FRAMES_MAX {
            tracing::warn!(%replica, "a replica does not take what is borrowed; its link is closed");
            self.link_gone(link);
        }
    }

    /// The agents of a lender get nothing more, or go on.
    fn choke(&mut self, replica: Replica, choked: bool) {
        let Some(lender) = self.lending.lenders.get(&replica) else { return };
        let mut handles: Vec<(u64, Name)> =
            lender.agents.iter().map(|(handle, name)| (*handle, name.clone())).collect();
        handles.sort_unstable();
        for (handle, name) in handles {
            let Some(id) = self.attached(&name, replica, handle) else { continue };
            let session = self.registry.get_mut(id).and_then(|agent| agent.session.as_mut());
            if let Some(session) = session {
                session.choked = choked;
            }
            if !choked {
                self.match_agent(id);
            }
        }
    }

    pub(super) fn take_borrowing(&mut self, replica: Replica, may_act: bool) -> Vec<LinkFrame> {
        self.look_at_wants(replica);
        let Some(lender) = self.lending.lenders.get_mut(&replica) else { return Vec::new() };
        let was_full = lender.is_full();
        let count = lender.outbox.len().min(limits::LINK_FRAMES_TAKEN);
        let frames = lender.outbox.drain(..count).filter(|frame| may_act || !frame.acts());
        let frames = frames.collect();
        if was_full && !lender.is_full() {
            self.choke(replica, false);
        }
        frames
    }

    /// What waits for agents is not what lenders were told.
    pub(super) fn wants_changed(&mut self) {
        let mut at: Option<Instant> = None;
        for lender in self.lending.lenders.values_mut().filter(|lender| !lender.changed) {
            lender.changed = true;
            if lender.wants_at <= self.now {
                self.effects.wake.push(lender.link);
            } else {
                at = Some(at.map_or(lender.wants_at, |at| at.min(lender.wants_at)));
            }
        }
        if let Some(at) = at {
            self.schedule_wants(at);
        }
    }

    /// Whether a lender was told that something waits.
    pub(super) fn has_wanted(&self) -> bool {
        self.lending.lenders.values().any(|lender| !lender.told.is_empty())
    }

    /// Wakes the links that have waited to say what waits.
    pub(super) fn wants_due(&mut self) {
        let due = self.lending.lenders.values().filter(|it| it.changed && it.wants_at <= self.now);
        self.effects.wake.extend(due.map(|lender| lender.link));
    }

    fn look_at_wants(&mut self, replica: Replica) {
        let now = self.now;
        let Some(lender) = self.lending.lenders.get_mut(&replica) else { return };
        if !lender.changed {
            return;
        }
        if lender.wants_at > now {
            let at = lender.wants_at;
            self.schedule_wants(at);
            return;
        }
        let wants = self.wants();
        let Some(lender) = self.lending.lenders.get_mut(&replica) else { return };
        lender.changed = false;
        lender.wants_at = now.after(limits::WANTS_EVERY);
        let again = std::mem::take(&mut lender.again) && !wants.is_empty();
        if again || lender.told != wants {
            lender.told.clone_from(&wants);
            lender.outbox.push_back(LinkFrame::Wants { wants, seen: lender.seen });
        }
    }

    /// All that waits for agents, the most urgent first.
    fn wants(&mut self) -> Vec<Want> {
        let shares = &self.lanes.shares;
        let want = |lane: &mut super::lanes::Lane| {
            let head = lane.queue.head(shares)?;
            Some(Want {
                needs: lane.needs.clone(),
                waiting: u32::try_from(lane.queue.len()).unwrap_or(u32::MAX),
                level: head.level,
                since: head.place.0,
            })
        };
        let mut wants: Vec<Want> = self.lanes.lanes.values_mut().filter_map(want).collect();
        wants.sort_by(|a, b| (b.level, a.since, &a.needs).cmp(&(a.level, b.since, &b.needs)));
        wants.truncate(limits::LINK_WANTS_MAX);
        wants
    }
}

impl Lender {
    fn is_full(&self) -> bool {
        self.outbox.len() >= limits::LINK_FRAMES_FULL
    }
}
