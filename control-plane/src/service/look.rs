//! What all replicas see of agents: what this one sees, and what the others say when asked. One
//! that does not answer in time is named, and not waited for.

use std::time::Duration;

use contracts::v1;
use engine::task::{AgentRef, Purpose};
use engine::{InstanceId, Instant, RunId};

use super::{Context, convert};
use crate::dispatch::Dispatcher;
use crate::limits;
use crate::recovery::resources::{Instance, Load};

/// What other replicas see.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// What they see of agent types; to be merged with what is seen here.
    pub(super) loads: Vec<Load>,
    /// Who has the tasks of the run.
    pub(super) held: Vec<(InstanceId, Purpose, AgentRef, Instant)>,
    /// The ids of those that did not answer in time.
    pub(super) silent: Vec<String>,
}

/// What the other replicas see of agents and of the tasks of a run; with a `window` also what is to
/// be done, and the history of this time.
pub(super) async fn others(
    context: &Context,
    run: Option<RunId>,
    window: Option<Duration>,
) -> Seen {
    let run_id = run.map(|run| run.to_string()).unwrap_or_default();
    let request = v1::LookRequest { run_id, window: window.map(convert::duration) };
    let mut seen = Seen::default();
    for (replica, answer) in context.replicas.peers().look(&request).await {
        let Some(answer) = answer else {
            seen.silent.push(replica.to_string());
            continue;
        };
        seen.loads.extend(answer.types.into_iter().map(load));
        seen.held.extend(answer.held.into_iter().map(held));
    }
    seen
}

/// What this replica sees, for another one.
pub(super) fn answer(
    dispatcher: &Dispatcher,
    run: Option<RunId>,
    window: Option<Duration>,
) -> v1::LookResponse {
    let window = window.map(|window| window.min(limits::LOOK_WINDOW_MAX));
    let held = run.map(|run| dispatcher.held(run)).unwrap_or_default();
    v1::LookResponse {
        types: dispatcher.loads(window).into_iter().map(seen_type).collect(),
        held: held
            .into_iter()
            .map(|(key, agent, since)| v1::HeldTask {
                step: key.instance.0,
                undo: key.purpose == Purpose::Undo,
                agent: agent.agent_type.to_string(),
                instance: agent.instance.to_string(),
                since: Some(convert::timestamp(since)),
            })
            .collect(),
    }
}

fn seen_type(load: Load) -> v1::SeenType {
    let agent = |instance: Instance| v1::SeenAgent {
        instance: instance.name,
        slots: instance.slots,
        busy: instance.busy,
        draining: instance.draining,
        lent: instance.lent,
    };
    v1::SeenType {
        agent: load.agent,
        agents: load.instances.into_iter().map(agent).collect(),
        queued: load.queued,
        oldest: Some(convert::duration(load.oldest)),
        ended: load.ended,
        duration: load.duration.map(convert::duration),
    }
}

fn load(seen: v1::SeenType) -> Load {
    let span =
        |span: Option<prost_types::Duration>| span.and_then(|it| Duration::try_from(it).ok());
    let instance = |agent: v1::SeenAgent| Instance {
        name: agent.instance,
        slots: agent.slots,
        busy: agent.busy,
        draining: agent.draining,
        lent: agent.lent,
    };
    Load {
        agent: seen.agent,
        instances: seen.agents.into_iter().map(instance).collect(),
        queued: seen.queued,
        oldest: span(seen.oldest).unwrap_or_default(),
        ended: seen.ended,
        duration: span(seen.duration),
    }
}

fn held(task: v1::HeldTask) -> (InstanceId, Purpose, AgentRef, Instant) {
    let agent = AgentRef {
        agent_type: task.agent.as_str().into(),
        instance: task.instance.as_str().into(),
    };
    let purpose = if task.undo { Purpose::Undo } else { Purpose::Do };
    let since = task.since.map_or(Instant::default(), |since| convert::instant(&since));
    (InstanceId(task.step), purpose, agent, since)
}
