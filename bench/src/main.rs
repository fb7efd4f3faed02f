//! Load, figures and their limits, taken against the real binary `orchestrator` in processes of
//! its own. Read in this order:
//!
//! - `workload`: what is run; `load`: the closed loop over gRPC;
//! - `host`: processes, agents, databases, the machine;
//! - `measure`: one measurement; `journal` and `statistics`: what it is made of;
//! - `limit`: the bare commit statement; `wire`: the bare stream; `compare`: both in turns;
//! - `suite`: all of it, as `make bench` has it; `parts`: figures that are no throughput;
//! - `replicas`: two on one database, and one of them killed;
//! - `open_loop`: runs at a fixed rate; `soak`: over hours; `economy`: idle, waiting, overloaded;
//! - `report`, `chart`: tables, the summary, the picture.
//!
//! It must not use anything of the server but its port: what is measured is what users get.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod chart;
mod compare;
mod economy;
mod host;
mod journal;
mod limit;
mod load;
mod measure;
mod open_loop;
mod parts;
mod replicas;
mod report;
mod soak;
mod statistics;
mod suite;
mod wire;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::compare::Row;
use crate::host::database::Kind;
use crate::host::machine::Machine;
use crate::host::{agents, server};
use crate::measure::{AGENTS, Case};
use crate::workload::Workload;

/// The same as in the server and in the agents that come with it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures Master Orchestrator.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Arguments {
    /// The binary to measure; by default `orchestrator` beside this one
    #[arg(long, global = true, value_name = "FILE")]
    orchestrator: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Take one measurement
    #[command(after_help = "Example:\n  bench run --workload chain --concurrency 2000 \
        --store postgres --seconds 10")]
    Run(RunArgs),
    /// Take all measurements; writes summary, chart and tables into a folder
    #[command(after_help = "Example:\n  bench all --quick")]
    All(SuiteArgs),
    /// Keep a steady load up for long; fails when memory or latency grows
    #[command(after_help = "Example:\n  bench soak --minutes 60")]
    Soak(SoakArgs),
    /// What is used when little happens, and what happens when too much is asked
    #[command(after_help = "Example:\n  bench economy --store postgres")]
    Economy(EconomyArgs),
    /// How fast a cancel reaches a running task, beside 512 chains
    #[command(after_help = "Example:\n  bench cancel --store postgres")]
    Cancel(CancelArgs),
    /// Two replicas on one PostgreSQL: what they carry, and what becomes of runs whose replica dies
    #[command(after_help = "Example:\n  bench replicas --runs 10000")]
    Replicas(ReplicasArgs),
    /// Be an agent of no-op steps until SIGTERM
    #[command(hide = true)]
    Agent(AgentArgs),
}

/// One measurement.
#[derive(Args, Debug)]
struct RunArgs {
    /// Which workflow
    #[arg(long, value_enum, default_value = "chain")]
    workload: Workload,
    /// How many runs at a time
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Which store
    #[arg(long, value_enum, default_value = "postgres")]
    store: Kind,
    /// How long ends are counted
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long the load is on before that
    #[arg(long, default_value_t = 3.0)]
    warm_up: f64,
    /// How many agent processes
    #[arg(long, default_value_t = AGENTS)]
    agents: usize,
    /// How often
    #[arg(long, default_value_t = 1)]
    repeats: usize,
    /// Give each start a request id, which is kept in a row of its own
    #[arg(long)]
    request_ids: bool,
    /// Take the limit too, in turns with the product: the bare commit statement with equal rows
    #[arg(long)]
    limit: bool,
    /// Print JSON in place of the table
    #[arg(long)]
    json: bool,
}

/// All measurements.
#[derive(Args, Debug)]
pub(crate) struct SuiteArgs {
    /// Fewer and shorter ones, within two minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// Leave the databases out that are not named
    #[arg(long, value_enum)]
    pub(crate) store: Option<Kind>,
}

/// A steady load.
#[derive(Args, Debug)]
pub(crate) struct SoakArgs {
    /// For how long
    #[arg(long, env = "SOAK_MINUTES", default_value_t = 60.0)]
    pub(crate) minutes: f64,
    /// How many chains of five steps are started each second
    #[arg(long, default_value_t = 200.0)]
    pub(crate) runs_per_second: f64,
    /// Which store
    #[arg(long, value_enum, default_value = "postgres")]
    pub(crate) store: Kind,
}

/// What is used when little happens.
#[derive(Args, Debug)]
pub(crate) struct EconomyArgs {
    /// Leave the databases out that are not named
    #[arg(long, value_enum)]
    pub(crate) store: Option<Kind>,
    /// How long each state is looked at
    #[arg(long, default_value_t = 30.0)]
    pub(crate) seconds: f64,
    /// How many idle agents
    #[arg(long, default_value_t = 10_000)]
    pub(crate) agents: usize,
    /// How many runs that wait
    #[arg(long, default_value_t = 100_000)]
    pub(crate) runs: usize,
}

/// How fast a cancel is.
#[derive(Args, Debug)]
struct CancelArgs {
    /// Which store
    #[arg(long, value_enum, default_value = "postgres")]
    store: Kind,
}

/// Two replicas.
#[derive(Args, Debug)]
pub(crate) struct ReplicasArgs {
    /// How many runs are in flight when their replica is killed
    #[arg(long, default_value_t = 10_000)]
    pub(crate) runs: usize,
    /// Leave out what two replicas carry together
    #[arg(long)]
    pub(crate) only_kill: bool,
}

/// Who the agent is.
#[derive(Args, Debug)]
struct AgentArgs {
    /// Addresses with commas between
    #[arg(long)]
    server: String,
    /// How many tasks at once
    #[arg(long)]
    slots: u32,
    /// Its name
    #[arg(long)]
    instance: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.verb {
        Verb::Agent(args) => {
            // One thread: two agents use two cores, and neither steals from itself.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(agents::be_one(args.server, args.slots, args.instance))
        }
        Verb::Run(args) => {
            let binary = server::binary(arguments.orchestrator)?;
            two_threads()?.block_on(run(&binary, &args))
        }
        Verb::All(args) => {
            let binary = server::binary(arguments.orchestrator)?;
            two_threads()?.block_on(suite::run(&binary, &args))
        }
        Verb::Cancel(args) => {
            let binary = server::binary(arguments.orchestrator)?;
            println!("{}", two_threads()?.block_on(parts::cancel(&binary, args.store))?);
            Ok(())
        }
        Verb::Soak(args) => {
            let binary = server::binary(arguments.orchestrator)?;
            two_threads()?.block_on(soak::run(&binary, &args))
        }
        Verb::Economy(args) => {
            let binary = server::binary(arguments.orchestrator)?;
            two_threads()?.block_on(economy::run(&binary, &args))
        }
        Verb::Replicas(args) => {
            let binary = server::binary(arguments.orchestrator)?;
            two_threads()?.block_on(replicas::run(&binary, &args))
        }
    }
}

fn two_threads() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

async fn run(binary: &std::path::Path, args: &RunArgs) -> anyhow::Result<()> {
    let case = Case {
        workload: args.workload,
        store: args.store,
        concurrency: args.concurrency,
        warm_up: Duration::from_secs_f64(args.warm_up),
        window: Duration::from_secs_f64(args.seconds),
        agents: args.agents,
        request_ids: args.request_ids,
    };
    eprintln!("{}", Machine::look()?.sentence());
    if args.limit {
        let compared = compare::compare(binary, &case, args.repeats).await?;
        println!("{}", report::table(&[Row::of(&compared)]));
        return Ok(());
    }
    let all = measure::measure(binary, &case, args.repeats).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        println!("{}", report::details(&all));
    }
    Ok(())
}
