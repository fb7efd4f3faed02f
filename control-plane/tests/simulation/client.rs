//! Clients: they start runs and ask things of them, and ask again when they heard nothing, each
//! time with the id of the request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control_plane::runs::{Error, NewRun, Runs, Started, started};
use engine::event::{Origin, RequestMark};
use engine::{Command, ContentHash, RunId};
use store::RequestRow;
use tokio::time::Instant;

use crate::history::Asked;
use crate::random::Random;
use crate::replica::Replica;
use crate::workload::Definition;
use crate::world::World;

/// Times that something is asked again before it is given up.
const TRIES_MAX: u32 = 400;
/// How long a client waits for an answer: longer than who answers waits himself.
const HEARD_WITHIN: Duration = Duration::from_secs(40);

pub(crate) async fn live(world: Arc<World>, number: u64, mut random: Random) {
    let chaos = u64::try_from(world.plan.chaos.as_millis()).unwrap();
    let end = Instant::now() + world.plan.chaos;
    let share = chaos / world.plan.runs_per_client;
    for n in 0..world.plan.runs_per_client {
        tokio::time::sleep(random.millis(0, share)).await;
        let definition = random.pick(&world.definitions);
        let request = format!("client-{number}-{n}");
        let asked = Start { definition, definitions: &world.definitions, request: &request };
        let Some(run) = asked.persist(&world, &mut random).await else { return };
        let (world, random, request) = (Arc::clone(&world), random.fork(), request.clone());
        if let Some(pause) = world.plan.commands {
            tokio::spawn(async move { command(&world, run, &request, pause, end, random).await });
        }
    }
}

struct Start<'a> {
    definition: &'a Definition,
    definitions: &'a [Definition],
    request: &'a str,
}

impl Start<'_> {
    async fn persist(&self, world: &World, random: &mut Random) -> Option<RunId> {
        for attempt in 0..TRIES_MAX {
            if let Some(replica) = world.some_replica(random) {
                let asked = self.once(&replica.runs, attempt);
                match heard(&replica, asked).await {
                    Ok(Started::New(run) | Started::Before(run)) => {
                        let request = self.request;
                        world.history.trace(|| format!("{request} started {run}"));
                        let mut seen = world.history.seen();
                        seen.started.insert(self.request.to_owned(), run);
                        return Some(run);
                    }
                    Err(Error::Overloaded(_) | Error::Unavailable(_)) => {}
                    Err(error) => {
                        world.problem(format!("{} was refused: {error}", self.request));
                        return None;
                    }
                }
            }
            tokio::time::sleep(random.millis(20, 2_000)).await;
        }
        world.problem(format!("{} was never answered", self.request));
        None
    }

    async fn once(&self, runs: &Runs, attempt: u32) -> Result<Started, Error> {
        let unreadable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string());
        let graph = runs.definitions().graph(self.definition.hash).await;
        let graph = graph.map_err(|error| unreadable(&error))?;
        let mut start = started(&graph, "{}".into(), runs.epoch());
        let sibling = |other: &Definition| (other.name.clone(), other.hash.to_string());
        let siblings = self.definitions.iter().filter(|other| other.name != "model");
        start.siblings = siblings.map(sibling).collect::<BTreeMap<_, _>>();
        start.origin = origin(self.request);
        let now = runs.clock().now();
        let request = RequestRow {
            tenant: start.tenant.clone(),
            request_id: self.request.to_owned(),
            run_id: None,
            body_hash: ContentHash::of(self.request.as_bytes()),
            at: now.0,
            response: None,
        };
        let id = RunId::at_instant(now, &format!("{}/{attempt}", self.request));
        runs.start(NewRun { id, graph, started: start, request: Some(request), fork: None }).await
    }
}

fn origin(request: &str) -> Origin {
    let body = ContentHash::of(request.as_bytes()).to_string();
    let request = Some(RequestMark { id: request.to_owned(), body });
    Origin { actor: "client".to_owned(), request }
}

/// What a replica answers, as far as it lives to say it.
async fn heard<T>(
    replica: &Replica,
    asked: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let asked = async {
        replica.fate.pause.over().await;
        let answer = asked.await;
        replica.fate.pause.over().await;
        answer
    };
    tokio::select! {
        biased;
        () = replica.fate.dead.cancelled() => {
            Err(Error::Unavailable("the replica died".to_owned()))
        }
        answer = tokio::time::timeout(HEARD_WITHIN, asked) => answer.unwrap_or_else(|_| {
            Err(Error::Unavailable("the replica does not answer".to_owned()))
        }),
    }
}

/// Asks one thing after another of a run, for as long as there are faults.
async fn command(
    world: &World,
    run: RunId,
    start: &str,
    pause: Duration,
    end: Instant,
    mut random: Random,
) {
    let most = u64::try_from(pause.as_millis()).unwrap() * 2;
    for n in 0..20 {
        tokio::time::sleep(random.millis(0, most)).await;
        if Instant::now() >= end {
            return;
        }
        let request = format!("{start}-{n}");
        let command = any(&mut random, &request);
        persist(world, run, &request, command, &mut random).await;
    }
}

fn any(random: &mut Random, request: &str) -> Command {
    let origin = origin(request);
    let reason = "as a client wishes".to_owned();
    match random.below(12) {
        0..4 => {
            let signal = "go".to_owned();
            Command::Signal { signal, payload: "{}".into(), origin }
        }
        4 => Command::Cancel { reason, origin },
        5 | 6 => Command::Pause { reason, origin },
        7 | 8 => Command::Resume { origin },
        9 => Command::Retry { origin },
        _ => {
            let (path, comment) = ("c".to_owned(), String::new());
            Command::Decide { path, approve: random.one_in(2), comment, amendment: None, origin }
        }
    }
}

/// Asks until it is answered for good.
pub(crate) async fn persist(
    world: &World,
    run: RunId,
    request: &str,
    command: Command,
    random: &mut Random,
) {
    let asked = Asked { run, acknowledged: false, refused: false };
    world.history.seen().asked.insert(request.to_owned(), asked);
    // What one replica was asked may be done after another one has refused it.
    let mut unsure = false;
    for _ in 0..TRIES_MAX {
        if let Some(replica) = world.some_replica(random) {
            let answer = heard(&replica, replica.runs.ask(run, command.clone())).await;
            let done = match &answer {
                Ok(()) => true,
                Err(Error::Overloaded(_) | Error::Unavailable(_)) => {
                    unsure |= world.plan.several.is_some();
                    false
                }
                Err(Error::Rejected(_)) => true,
                Err(error) => {
                    world.problem(format!("{request} of {run} went wrong: {error}"));
                    true
                }
            };
            if done {
                world.history.trace(|| format!("{request} of {run}: {answer:?}"));
                let mut seen = world.history.seen();
                if let Some(asked) = seen.asked.get_mut(request) {
                    asked.acknowledged = answer.is_ok();
                    asked.refused = answer.is_err() && !unsure;
                }
                return;
            }
        }
        tokio::time::sleep(random.millis(20, 2_000)).await;
    }
    world.problem(format!("{request} was never answered"));
}
