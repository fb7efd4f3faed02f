//! What the control plane costs when little happens, and what it does when too much does: idle,
//! with ten thousand idle agents, with runs that wait, at twice the load it can carry.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contracts::v1::agent_service_client::AgentServiceClient;
use contracts::v1::{
    self, ConnectRequest, RunToStart, SignalRunRequest, StartRunsRequest, connect_request::Frame,
    connect_response, start_runs_request, start_runs_response::Item,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

use crate::EconomyArgs;
use crate::host::database::{Database, Kind};
use crate::host::machine::Machine;
use crate::host::server::{Server, connect};
use crate::host::usage;
use crate::load::setup;
use crate::measure::{AGENTS, Case, Setting};
use crate::open_loop::OpenLoop;
use crate::parts::Part;
use crate::report;
use crate::workload::{AGENT, NOOP, Workload};

/// How many streams one connection of idle agents has.
const STREAMS_PER_CONNECTION: usize = 1_000;
/// How often an idle agent pings, as the SDK does.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long the server is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// The same after a burst, whose memory goes back to the system within ten seconds.
const SETTLE_AFTER_BURST: Duration = Duration::from_secs(15);
/// How long a command to a run that waits may take.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long after it was refused a start is sent again.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// Takes all these figures.
pub(crate) async fn run(binary: &Path, args: &EconomyArgs) -> anyhow::Result<()> {
    eprintln!("{}", Machine::look()?.sentence());
    let stores = [Kind::Postgres, Kind::Sqlite];
    let mut all = Vec::new();
    for store in stores.into_iter().filter(|kind| args.store.is_none_or(|only| only == *kind)) {
        let name = store.name();
        eprintln!("idle on {name} …");
        let came = idle(binary, store, args.seconds).await;
        let goal = "at most 1 query/s and 0.1% of a core";
        all.push(Part::of(&format!("idle without agents, {name}"), goal, came));
        eprintln!("{} idle agents on {name} …", args.agents);
        let came = idle_agents(binary, store, args).await;
        let what = format!("{} idle agents, {name}", args.agents);
        all.push(Part::of(&what, "under 5% of a core and 500 MB", came));
        eprintln!("{} runs that wait on {name} …", args.runs);
        let came = parked(binary, store, args.runs).await;
        let what = format!("{} runs that wait, {name}", args.runs);
        all.push(Part::of(&what, "under 200 MB, loaded in under 2 s", came));
        eprintln!("twice the load on {name} …");
        let came = overload(binary, store, args.seconds).await;
        let goal = "throughput stays, starts are refused, none lost";
        all.push(Part::of(&format!("twice the load it can carry, {name}"), goal, came));
    }
    println!("{}", report::parts(&all));
    let failed = all.iter().filter(|part| part.failed.is_some()).count();
    if failed > 0 {
        bail!("{failed} of {} could not be measured", all.len());
    }
    Ok(())
}

/// What a server uses over a while: percent of a core, and statements a second.
async fn rest(
    server: &Server,
    database: &Database,
    seconds: f64,
) -> anyhow::Result<(f64, Option<f64>)> {
    tokio::time::sleep(SETTLE).await;
    let process = server.process.id();
    let began = Instant::now();
    let cpu = usage::cpu_micros(process)?;
    let before = database.statements().await?;
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let after = database.statements().await?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = (usage::cpu_micros(process)? - cpu) as f64 / 1e6 / seconds * 100.0;
    let asked = before.zip(after).map(|(before, after)| (after - before) as f64 / seconds);
    Ok((cpu, asked))
}

fn told(cpu: f64, asked: Option<f64>) -> String {
    let asked = asked.map_or_else(String::new, |asked| format!(", {asked:.2} statements/s"));
    format!("{cpu:.2}% of a core{asked}")
}

async fn idle(binary: &Path, store: Kind, seconds: f64) -> anyhow::Result<String> {
    let database = Database::counted(store).await?;
    let server = Server::start(binary, &database)?;
    let (cpu, asked) = rest(&server, &database, seconds).await?;
    let rss = usage::resident_mb(server.process.id())?;
    server.process.end().await?;
    Ok(format!("{}, {rss:.0} MB", told(cpu, asked)))
}

async fn idle_agents(binary: &Path, store: Kind, args: &EconomyArgs) -> anyhow::Result<String> {
    let database = Database::counted(store).await?;
    let server = Server::start(binary, &database)?;
    let began = Instant::now();
    let mut connecting = Vec::new();
    let mut channel = connect(&server.url).await?;
    for n in 0..args.agents {
        if n > 0 && n % STREAMS_PER_CONNECTION == 0 {
            channel = connect(&server.url).await?;
        }
        connecting.push(tokio::spawn(idle_agent(channel.clone(), n)));
    }
    let mut agents = Vec::new();
    for agent in connecting {
        agents.push(agent.await??);
    }
    let took = began.elapsed().as_secs_f64();
    let (cpu, asked) = rest(&server, &database, args.seconds).await?;
    let rss = usage::resident_mb(server.process.id())?;
    if let Some(gone) = agents.iter().position(tokio::task::JoinHandle::is_finished) {
        bail!("the stream of agent {gone} ended");
    }
    agents.iter().for_each(tokio::task::JoinHandle::abort);
    server.process.end().await?;
    Ok(format!("{}, {rss:.0} MB; connected within {took:.1} s", told(cpu, asked)))
}

/// An agent that registers and then only lives; gives the task that keeps it alive.
async fn idle_agent(
    channel: Channel,
    number: usize,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let (frames, requests) = mpsc::channel(4);
    let action = v1::ActionCard { name: NOOP.to_owned(), ..Default::default() };
    let card = v1::AgentCard { actions: vec![action], ..Default::default() };
    let register = v1::Register {
        agent_type: AGENT.to_owned(),
        instance: format!("idle-{number}"),
        version: "1.0.0".to_owned(),
        slots: 8,
        card: Some(card),
        ..Default::default()
    };
    frames.send(ConnectRequest { frame: Some(Frame::Register(register)) }).await?;
    let mut client = AgentServiceClient::new(channel);
    let mut stream = client.connect(ReceiverStream::new(requests)).await?.into_inner();
    stream.message().await?.context("the registration is answered")?;
    Ok(tokio::spawn(async move {
        // Spread, as those of agents that came at different times.
        let first = PING_EVERY.mul_f64((number % 1000) as f64 / 1000.0);
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + first, PING_EVERY);
        loop {
            let frame = tokio::select! {
                _ = pings.tick() => Frame::Ping(v1::Ping::default()),
                heard = stream.message() => match heard {
                    Ok(Some(heard)) => match heard.frame {
                        Some(connect_response::Frame::Ping(ping)) => {
                            Frame::Pong(v1::Pong { nonce: ping.nonce })
                        }
                        _ => continue,
                    },
                    Ok(None) | Err(_) => return,
                },
            };
            if frames.send(ConnectRequest { frame: Some(frame) }).await.is_err() {
                return;
            }
        }
    }))
}

async fn parked(binary: &Path, store: Kind, runs: usize) -> anyhow::Result<String> {
    let database = Database::counted(store).await?;
    let server = Server::start(binary, &database)?;
    let bare = usage::resident_mb(server.process.id())?;
    let began = Instant::now();
    let run_ids = start_all(&server, runs).await?;
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE_AFTER_BURST).await;
    let (cpu, asked) = rest(&server, &database, 5.0).await?;
    let rss = usage::resident_mb(server.process.id())?;
    server.process.end().await?;
    let began = Instant::now();
    let server = Server::start(binary, &database)?;
    let ready = began.elapsed().as_secs_f64();
    for run_id in [run_ids.first(), run_ids.last()].into_iter().flatten() {
        finish(&server, run_id).await?;
    }
    let answered = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let again = usage::resident_mb(server.process.id())?;
    server.process.end().await?;
    Ok(format!(
        "{rss:.0} MB ({bare:.0} before), {}; started within {took:.1} s; after a restart serving \
         in {ready:.2} s, first and last run went on by {answered:.2} s, {again:.0} MB",
        told(cpu, asked)
    ))
}

/// Starts runs that wait for a signal; gives their ids. What is refused for a while, because so
/// many are in memory still, is sent again.
async fn start_all(server: &Server, runs: usize) -> anyhow::Result<Vec<String>> {
    let (frames, requests) = mpsc::channel(1024);
    let mut first = setup(Workload::Park);
    if let Some(start_runs_request::Item::Setup(setup)) = &mut first.item {
        setup.await_end = false;
    }
    let start = |tag| {
        let item = start_runs_request::Item::Run(RunToStart { tag, ..Default::default() });
        StartRunsRequest { item: Some(item) }
    };
    let sender = frames.clone();
    tokio::spawn(async move {
        let items = (0..i64::try_from(runs).unwrap_or(i64::MAX)).map(start);
        for frame in std::iter::once(first).chain(items) {
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    let mut client = server.client().await?;
    let mut answers = client.start_runs(ReceiverStream::new(requests)).await?.into_inner();
    let mut run_ids = Vec::with_capacity(runs);
    while run_ids.len() < runs {
        let answer = answers.message().await?.context("the stream ended before all had started")?;
        match answer.item {
            Some(Item::Started(started)) => run_ids.push(started.run_id),
            Some(Item::Refused(status)) if status.code == Code::ResourceExhausted as i32 => {
                let (again, tag) = (frames.clone(), answer.tag);
                tokio::spawn(async move {
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    // With the stream gone there is nothing to be started any more.
                    drop(again.send(start(tag)).await);
                });
            }
            Some(Item::Refused(status)) => {
                bail!("after {} runs: {}", run_ids.len(), status.message)
            }
            _ => {}
        }
    }
    Ok(run_ids)
}

/// Signals a run that waits, and waits for its end.
async fn finish(server: &Server, run_id: &str) -> anyhow::Result<()> {
    let mut client = server.client().await?;
    let request = SignalRunRequest {
        run_id: run_id.to_owned(),
        signal: "go".to_owned(),
        ..Default::default()
    };
    client.signal_run(request).await?;
    let request = v1::WatchRunRequest { run_id: run_id.to_owned(), after_sequence: 0 };
    let mut watch = client.watch_run(request).await?.into_inner();
    let ended = async {
        while watch.message().await?.is_some() {}
        anyhow::Ok(())
    };
    tokio::time::timeout(WAIT_MAX, ended).await.context("a run that waited did not end")?
}

async fn overload(binary: &Path, store: Kind, seconds: f64) -> anyhow::Result<String> {
    let case = Case {
        workload: Workload::Chain,
        store,
        concurrency: 2000,
        warm_up: Duration::from_secs(2),
        window: Duration::from_secs(5),
        agents: AGENTS,
        request_ids: false,
    };
    let mut setting = Setting::start(binary, &case).await?;
    let (figures, loaded) = setting.measure(&case).await?;
    let carries = figures.runs_per_second;
    let load = OpenLoop {
        workload: Workload::Chain,
        runs_per_second: carries * 2.0,
        counts: Arc::default(),
        stop: CancellationToken::new(),
    };
    let loading = tokio::spawn(load.clone().run(setting.server.url.clone()));
    tokio::time::sleep(Duration::from_secs_f64(seconds / 2.0)).await;
    let half = load.look().ended;
    tokio::time::sleep(Duration::from_secs_f64(seconds / 2.0)).await;
    let counts = load.look();
    let rate = (counts.ended - half) as f64 / (seconds / 2.0);
    load.stop.cancel();
    loading.await??;
    let ended = load.look().ended;
    let peak = usage::peak_mb(setting.server.process.id())?;
    // Once more, for the machine may be quicker or slower by now.
    let (figures, loaded_behind) = setting.measure(&case).await?;
    let behind = figures.runs_per_second;
    let runs = ended + loaded.ended + loaded_behind.ended;
    setting.end(runs * u64::from(Workload::Chain.steps())).await?;
    Ok(format!(
        "carries {carries:.0} runs/s, and {behind:.0} behind it; offered twice the former for \
         {seconds:.0} s it does {rate:.0} runs/s; of {} starts {} were accepted and all ended, \
         {} refused, {} held back by the connection; {peak:.0} MB at most",
        counts.sent + counts.held_back,
        ended,
        counts.refused,
        counts.held_back,
    ))
}
