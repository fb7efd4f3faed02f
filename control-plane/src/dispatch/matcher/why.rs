//! Says for people why a task waits, and what would help. Changes nothing.

use engine::Instant;
use engine::task::{TaskKey, TaskOrder};

use super::super::breaker::Stand;
use super::super::registry::{Agent, Needs};
use super::view::{names_of, nearest};
use super::{Matcher, Out, State, Task, Waiting as WaitingTask};

/// Why a task waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Since when.
    pub since: Instant,
    /// What it waits for.
    pub cause: String,
    /// What would help; empty when waiting is all there is to do.
    pub remedy: String,
}

type Words = (String, String);

impl Matcher {
    /// Why a task waits; `None` when it does not wait here.
    pub(crate) fn why(&self, key: TaskKey) -> Option<Waiting> {
        let task = self.tasks.get(&key)?;
        let waiting = match &task.state {
            State::Waiting(waiting) => waiting,
            State::Out(out) => return self.gone_with(out),
            State::Ended(_) => return None,
        };
        let (cause, remedy) = self.cause(task, waiting);
        let since = waiting.since.max(task.order.queued_at.min(self.now));
        Some(Waiting { since, cause, remedy })
    }

    /// A task that is out waits when the agent that has it is not there.
    fn gone_with(&self, out: &Out) -> Option<Waiting> {
        let agent = self.registry.get(out.agent).filter(|agent| agent.session.is_none())?;
        let (who, until) = (&agent.registration, out.lease_until.to_rfc3339());
        let cause = format!(
            "agent `{}/{}`, which has the task, does not answer; unless it comes back, another \
             may have the task from {until} on",
            who.agent_type, who.instance
        );
        Some(Waiting { since: agent.last_heard, cause, remedy: String::new() })
    }

    fn cause(&self, task: &Task, waiting: &WaitingTask) -> Words {
        if waiting.held_since.is_some() {
            return ("the run is paused".into(), "resume the run".into());
        }
        match waiting.gate.filter(|gate| *gate > self.now) {
            Some(gate) if waiting.reserved => {
                let gate = gate.to_rfc3339();
                let what = "the agent that had the task before the restart may claim it until";
                return (format!("{what} {gate}"), String::new());
            }
            Some(gate) => {
                let (attempt, gate) = (task.order.attempt, gate.to_rfc3339());
                return (format!("attempt {attempt} is due at {gate}"), String::new());
            }
            None => {}
        }
        let needs = Needs::of(&task.order);
        self.missing(&task.order, &needs).unwrap_or_else(|| self.busy(task, &needs))
    }

    /// What no connected agent has.
    pub(super) fn missing(&self, order: &TaskOrder, needs: &Needs) -> Option<Words> {
        let action = &order.action;
        let named: Vec<&Agent> = self
            .registry
            .in_order()
            .filter(|agent| needs.agent.as_ref().is_none_or(|name| agent.answers_to(name)))
            .collect();
        let reachable = named.iter().filter(|agent| agent.session.is_some()).count();
        if reachable == 0 {
            return Some(self.nobody(order, named.len()));
        }
        let who = order.agent.as_ref().map_or_else(
            || "no connected agent offers".to_owned(),
            |name| format!("no connected agent of type `{name}` offers"),
        );
        let offering: Vec<&&Agent> =
            named.iter().filter(|it| it.registration.actions.contains_key(action)).collect();
        if offering.is_empty() {
            let names = named.iter().flat_map(|it| it.registration.actions.keys().cloned());
            let like = nearest(action, names)
                .map_or_else(String::new, |like| format!("; did you mean `{like}`?"));
            let remedy = "start an agent that offers it, or correct the definition".to_owned();
            return Some((format!("{who} the action `{action}`{like}"), remedy));
        }
        if !offering.iter().any(|agent| agent.has_labels(&needs.requires)) {
            let labels: Vec<String> =
                needs.requires.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let labels = labels.join(", ");
            let cause = format!("{who} the action `{action}` with the labels {labels}");
            return Some((cause, "start an agent with these labels".into()));
        }
        None
    }

    fn nobody(&self, order: &TaskOrder, unreachable: usize) -> Words {
        let Some(name) = &order.agent else {
            return ("no agent is connected".into(), "start an agent".into());
        };
        if unreachable > 0 {
            let cause = format!(
                "no agent of type `{name}` is connected; {unreachable} could be reached before"
            );
            return (cause, "see whether the agent runs and reaches this address".into());
        }
        let names = self.registry.in_order().flat_map(names_of);
        let like = nearest(name, names)
            .map_or_else(String::new, |like| format!("; did you mean `{like}`?"));
        let cause = format!("no agent of type `{name}` is connected{like}");
        (cause, "start one, or correct the name in the definition".into())
    }

    /// Agents are there, and none has room.
    fn busy(&self, task: &Task, needs: &Needs) -> Words {
        let action = &needs.action;
        let suited: Vec<&Agent> =
            self.registry.in_order().filter(|it| it.session.is_some() && it.suits(needs)).collect();
        let who = count_of(suited.len(), needs);
        if suited.iter().all(|agent| !agent.is_open()) {
            let what = "take nothing new: they are about to leave";
            return (format!("{who}, which {what}"), "start another agent".into());
        }
        let open: Vec<&Agent> = suited.into_iter().filter(|agent| agent.is_open()).collect();
        let barred = |agent: &Agent| !agent.breaker_permits(action, self.now);
        if open.iter().all(|agent| barred(agent)) {
            let until = open.iter().filter_map(|agent| opens_at(agent, action, self.now)).min();
            let until = until.map_or_else(
                || "; a trial is under way".to_owned(),
                |until| format!(" until {}", until.to_rfc3339()),
            );
            let cause = format!(
                "{who}, but the circuit breaker of `{action}` is open at all of them{until}"
            );
            return (cause, "see why its tasks fail there".into());
        }
        if let Some(instance) = &needs.preferred
            && open.iter().any(|agent| agent.registration.instance == *instance)
        {
            let cause = format!("it waits for room at `{instance}`, where the step was done");
            return (cause, String::new());
        }
        if open.iter().all(|agent| !agent.has_credit(action) || barred(agent)) {
            let (out, slots) = open.iter().fold((0, 0), |(out, slots), agent| {
                let credits = agent.credits.total as usize;
                // What a lender does not lend it has taken up itself.
                let total = credits.max(agent.registration.slots as usize);
                let taken = if agent.lender.is_some() { total } else { agent.taken() };
                let total = if agent.lender.is_some() { total } else { credits };
                (out + taken, slots + total)
            });
            let cause = format!("{who} but all slots are taken ({out} of {slots})");
            return (cause, "start further agents, or give them more slots".into());
        }
        let waits_for_poll = open.iter().all(|it| it.session.as_ref().is_some_and(|s| s.polls));
        if waits_for_poll {
            return (format!("{who} and will be given it with the next poll"), String::new());
        }
        let losses = task.losses;
        let cause =
            format!("{who} but do not read fast enough what they are sent ({losses} losses)");
        (cause, "see whether the agents are overloaded".into())
    }
}

fn count_of(count: usize, needs: &Needs) -> String {
    let what = needs.agent.as_ref().map_or_else(
        || format!("that offer `{}`", needs.action),
        |name| format!("of type `{name}`"),
    );
    match count {
        1 => format!("1 agent {what} is connected"),
        count => format!("{count} agents {what} are connected"),
    }
}

fn opens_at(agent: &Agent, action: &str, now: Instant) -> Option<Instant> {
    match agent.breakers.get(action)?.stand(now) {
        Stand::Open(until) => Some(until),
        Stand::Closed | Stand::HalfOpen => None,
    }
}
