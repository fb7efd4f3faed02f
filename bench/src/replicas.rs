//! Two replicas on one PostgreSQL: what they do together, and what becomes of the runs of one that
//! is killed.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contracts::v1::{
    EventKind, JournalEvent, RunToStart, StartRunsRequest, start_runs_request,
    start_runs_response::Item,
};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::host::agents::{Agents, SLOTS_MAX};
use crate::host::database::{Database, Kind};
use crate::host::machine::Machine;
use crate::host::server::Server;
use crate::load::{Load, setup};
use crate::parts::Part;
use crate::statistics::Spread;
use crate::workload::Workload;
use crate::{ReplicasArgs, journal, report};

/// How many chains go on at a time.
const CHAINS: u32 = 2000;
const WARM_UP: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(6);
/// How long runs go on before their replica is killed.
const BEFORE_KILL: Duration = Duration::from_secs(4);
/// How long all of them may take to end behind that.
const ENDS_WAIT_MAX: Duration = Duration::from_secs(120);
/// How many journals are read at a time.
const READS: usize = 32;

/// Which replicas have agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    One,
    Both,
    First,
}

/// A replica on an address that others can be told of.
fn replica(binary: &Path, database: &Database) -> anyhow::Result<Server> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let listen = format!("127.0.0.1:{port}");
    Server::start_with(binary, database, &["--listen", &listen])
}

/// Takes the figures of two replicas alone.
pub(crate) async fn run(binary: &Path, args: &ReplicasArgs) -> anyhow::Result<()> {
    eprintln!("{}", Machine::look()?.sentence());
    let all = parts(binary, args).await;
    println!("{}", report::parts(&all));
    if let Some(why) = all.iter().find_map(|part| part.failed.as_deref()) {
        bail!("not all could be measured: {why}");
    }
    Ok(())
}

/// All figures of two replicas.
pub(crate) async fn parts(binary: &Path, args: &ReplicasArgs) -> Vec<Part> {
    let mut all = Vec::new();
    if !args.only_kill {
        let goal = "0.9 with agents on both, 0.7 with all on one side";
        let what = format!("two replicas on one PostgreSQL, {CHAINS} chains");
        all.push(Part::of(&what, goal, throughput(binary).await));
    }
    let what = format!("SIGKILL of a replica with {} runs in flight", args.runs);
    let goal = "all go on within 10 s, none lost, none twice";
    all.push(Part::of(&what, goal, adoption(binary, args.runs).await));
    all
}

/// Steps a second of one replica, of two with agents on both, and of two with all on one side.
async fn throughput(binary: &Path) -> anyhow::Result<String> {
    let one = side(binary, Side::One).await.context("one replica")?;
    let both = side(binary, Side::Both).await.context("agents on both")?;
    let first = side(binary, Side::First).await.context("all agents on one side")?;
    Ok(format!(
        "one {one:.0} steps/s; two with agents on both {both:.0} ({:.2}); all agents on one side \
         {first:.0} ({:.2})",
        both / one,
        first / one
    ))
}

async fn side(binary: &Path, side: Side) -> anyhow::Result<f64> {
    let database = Database::new(Kind::Postgres).await?;
    let mut servers = vec![replica(binary, &database)?];
    if side != Side::One {
        servers.push(replica(binary, &database)?);
    }
    let mut agents = Agents::start(1, SLOTS_MAX, &servers[0]).await?;
    let other = if side == Side::Both { &servers[1] } else { &servers[0] };
    agents.add(Agents::start(1, SLOTS_MAX, other).await?);
    for server in &servers {
        agents.known_at(&server.url).await?;
    }
    let from = Instant::now() + WARM_UP;
    let load = Load {
        workload: Workload::Chain,
        concurrency: CHAINS,
        window: (from, from + WINDOW),
        request_ids: false,
        stop: CancellationToken::new(),
    };
    let urls: Vec<String> = servers.iter().map(|server| server.url.clone()).collect();
    let loading = tokio::spawn(async move { load.run(&urls).await });
    tokio::time::sleep_until(from.into()).await;
    let before = tokio::task::block_in_place(|| agents.tasks())?;
    let began = Instant::now();
    tokio::time::sleep(WINDOW).await;
    let after = tokio::task::block_in_place(|| agents.tasks())?;
    let rate = (after - before) as f64 / began.elapsed().as_secs_f64();
    let loaded = loading.await??;
    let counted = agents.end().await?;
    for server in servers {
        server.process.end().await?;
    }
    let steps = loaded.ended * u64::from(Workload::Chain.steps());
    if counted.tasks != steps {
        bail!("the runs had {steps} steps, and the agents did {} tasks", counted.tasks);
    }
    Ok(rate)
}

/// Kills a replica with so many runs in flight, and looks when each of them went on.
async fn adoption(binary: &Path, runs: usize) -> anyhow::Result<String> {
    let database = Database::new(Kind::Postgres).await?;
    let (mut first, second) = (replica(binary, &database)?, replica(binary, &database)?);
    let slots = u32::try_from(runs)?;
    let urls = [&first.url, &second.url];
    let both = format!("{},{}", urls[0], urls[1]);
    let turned = format!("{},{}", urls[1], urls[0]);
    let mut agents = Agents::start_at(1, slots, &both).await?;
    agents.add(Agents::start_at(1, slots, &turned).await?);
    for url in urls {
        agents.known_at(url).await?;
    }
    let run_ids = start(&first, runs, false).await?;
    tokio::time::sleep(BEFORE_KILL).await;
    let killed = wall_micros();
    first.process.kill();
    let ended = tokio::time::timeout(ENDS_WAIT_MAX, start(&second, runs, true)).await;
    let ended: HashSet<String> =
        ended.context("not all runs ended behind the kill")??.into_iter().collect();
    let lost = run_ids.iter().filter(|run_id| !ended.contains(*run_id)).count();
    if lost > 0 || ended.len() != runs {
        bail!("{lost} of {runs} runs were lost, {} ended", ended.len());
    }
    let counted = agents.end().await?;
    let (mut adopted, mut went_on, mut next_events) = (Vec::new(), Vec::new(), Vec::new());
    let client = second.client().await?;
    let reads = run_ids.iter().map(|run_id| {
        let mut client = client.clone();
        async move { journal::read(&mut client, run_id).await }
    });
    let mut reads = futures::stream::iter(reads).buffer_unordered(READS);
    while let Some(events) = reads.next().await {
        let events = events?;
        journal::check(&events, Workload::Naps.steps()).map_err(anyhow::Error::msg)?;
        let Some(place) = events.iter().position(|it| it.kind() == EventKind::RunAdopted) else {
            continue;
        };
        let next = &events[(place + 1).min(events.len() - 1)];
        let at = |event: &JournalEvent| journal::micros(event).unwrap_or(0) - killed;
        let (taken_over, heard) = (at(&events[place]), at(next));
        // A task that was given out behind that was at work from then on.
        let given_out = heard - journal::took(next).unwrap_or(0);
        let at_work = if given_out > taken_over { given_out } else { heard };
        adopted.push(u64::try_from(taken_over).unwrap_or(0));
        went_on.push(u64::try_from(at_work).unwrap_or(0));
        next_events.push(u64::try_from(heard).unwrap_or(0));
    }
    second.process.end().await?;
    let steps = runs as u64 * u64::from(Workload::Naps.steps());
    let again = counted.tasks.saturating_sub(steps);
    let (adopted, went_on) = (Spread::of(adopted), Spread::of(went_on));
    let next_events = Spread::of(next_events);
    Ok(format!(
        "{} runs adopted: p50 {:.1} s, last {:.1} s behind the kill; the last had a task at work or \
         its result at {:.1} s, and its next event at {:.1} s (a task takes two); none lost, each \
         step's success once; {again} of {steps} tasks were done again",
        adopted.count,
        adopted.p50_ms / 1000.0,
        adopted.max_ms / 1000.0,
        went_on.max_ms / 1000.0,
        next_events.max_ms / 1000.0,
    ))
}

/// Starts the runs, or asks for the same ones again and waits for their ends; gives their ids.
async fn start(server: &Server, runs: usize, await_end: bool) -> anyhow::Result<Vec<String>> {
    let (frames, requests) = mpsc::channel(1024);
    let mut first = setup(Workload::Naps);
    if let Some(start_runs_request::Item::Setup(setup)) = &mut first.item {
        setup.await_end = await_end;
        setup.require_agents = false;
    }
    tokio::spawn(async move {
        let items = (0..i64::try_from(runs).unwrap_or(i64::MAX)).map(|tag| {
            let request_id = format!("naps-{tag}");
            start_runs_request::Item::Run(RunToStart { tag, params: None, request_id })
        });
        let items = items.map(|item| StartRunsRequest { item: Some(item) });
        for frame in std::iter::once(first).chain(items) {
            if frames.send(frame).await.is_err() {
                return;
            }
        }
    });
    let mut client = server.client().await?;
    let mut answers = client.start_runs(ReceiverStream::new(requests)).await?.into_inner();
    let mut run_ids = Vec::with_capacity(runs);
    while let Some(answer) = answers.message().await? {
        match answer.item {
            Some(Item::Started(started)) if !await_end => run_ids.push(started.run_id),
            Some(Item::Ended(ended)) => run_ids.extend(ended.run.map(|run| run.run_id)),
            Some(Item::Refused(status)) => bail!("a start was refused: {}", status.message),
            _ => {}
        }
    }
    Ok(run_ids)
}

#[expect(clippy::disallowed_methods, reason = "the journal has wall-clock times")]
fn wall_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(0))
}
