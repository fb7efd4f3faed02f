//! The long form (`make chaos`): faults at random moments under load, for minutes. The seed says
//! which faults come in which order, and is printed with each of them; processes and the machine
//! say when exactly.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use store::testing::Server as Postgres;
use tempfile::TempDir;

use super::proxy::Proxy;
use super::replicas::Replica;
use super::{Load, Place, counter, database, free_address};
use crate::support::Process;

/// For how many minutes; the test does nothing without it.
const MINUTES_VARIABLE: &str = "CHAOS_MINUTES";
/// What is drawn; the clock says without it.
const SEED_VARIABLE: &str = "CHAOS_SEED";
/// Set where the test has a network of its own, whose loopback may be taken down.
const NETWORK_VARIABLE: &str = "CHAOS_NETWORK";

const REPLICAS: usize = 3;
const AGENTS: usize = 3;
/// How many runs each client starts between two looks at everything: a multiple of four.
const RUNS: usize = 240;
/// The longest time that something stands still or is parted: leases end within.
const LONGEST: Duration = Duration::from_secs(12);

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % count
    }

    fn pause(&mut self, longest: Duration) -> Duration {
        longest / 100 * u32::try_from(self.below(100) + 1).unwrap()
    }
}

struct Chaos {
    random: Random,
    began: Instant,
    replicas: Vec<Replica>,
    agents: Vec<Process>,
    /// The agents' ways to the replicas.
    ways: Vec<Proxy>,
    postgres: Postgres,
    file: PathBuf,
    folder: TempDir,
}

impl Chaos {
    async fn start(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Place::Postgres(both) = Place::postgres().await else {
            unreachable!("it is PostgreSQL")
        };
        let (postgres, base) = (both.0, both.1.target());
        let (mut replicas, mut ways) = (Vec::new(), Vec::new());
        for number in 0..REPLICAS {
            let at = free_address();
            let name = format!("replica-{number}");
            replicas.push(Replica::start(folder.path(), &name, at, base).await);
            ways.push(Proxy::to(at).await);
        }
        let (random, file) = (Random(seed), folder.path().join("marks.txt"));
        let (began, agents) = (Instant::now(), Vec::new());
        Self { random, began, replicas, agents, ways, postgres, file, folder }
    }

    /// A new file of marks for a new load, and new agents that mark in it.
    fn load(&mut self, round: usize) -> Load {
        self.file = self.folder.path().join(format!("marks-{round}.txt"));
        self.agents = (0..AGENTS).map(|number| self.agent(number)).collect();
        let urls: Vec<&str> = self.replicas.iter().map(|it| &*it.server.url).collect();
        Load::of(RUNS, &urls, &self.file)
    }

    /// Each begins elsewhere.
    fn agent(&self, number: usize) -> Process {
        let at = |step: usize| self.ways[(number + step) % REPLICAS].address;
        let urls: Vec<String> = (0..REPLICAS).map(|step| format!("http://{}", at(step))).collect();
        counter::start(&self.file, &urls.join(","))
    }

    #[expect(clippy::print_stderr, reason = "what happens, for whoever looks at a failure")]
    fn tell(&self, what: &str) {
        eprintln!("{:8.1}  {what}", self.began.elapsed().as_secs_f64());
    }

    /// One fault, which is over when this returns.
    async fn fault(&mut self) {
        let one = self.random.below(REPLICAS);
        let pause = self.random.pause(LONGEST);
        let kind = self.random.below(12);
        match kind {
            0..4 => self.fault_of_replica(kind, one, pause).await,
            4..8 => self.fault_of_way(kind, one, pause).await,
            8 | 9 => self.fault_of_agent(kind == 8, one % AGENTS, pause).await,
            10 => {
                self.tell(&format!("the database stands still for {pause:.1?}"));
                database::signal_all(&self.postgres, "-STOP");
                tokio::time::sleep(pause).await;
                database::signal_all(&self.postgres, "-CONT");
            }
            _ if std::env::var_os(NETWORK_VARIABLE).is_some() => {
                self.tell(&format!("nobody reaches anybody for {pause:.1?}"));
                loopback("down");
                tokio::time::sleep(pause).await;
                loopback("up");
            }
            _ => {
                self.tell("the database is killed");
                tokio::task::block_in_place(|| {
                    self.postgres.kill().unwrap();
                    self.postgres.start_again().unwrap();
                });
            }
        }
    }

    async fn fault_of_replica(&mut self, kind: usize, one: usize, pause: Duration) {
        let name = format!("replica-{one}");
        let process = &mut self.replicas[one].server.process;
        match kind {
            0 | 1 => {
                process.kill();
                self.tell(&format!("{name} is killed, and started after {pause:.1?}"));
                tokio::time::sleep(pause).await;
                self.replicas[one].start_again(self.folder.path(), &name);
            }
            2 => {
                process.signal("-TERM");
                self.tell(&format!("{name} is stopped, and started again"));
                tokio::task::block_in_place(|| self.replicas[one].server.process.wait());
                self.replicas[one].start_again(self.folder.path(), &name);
            }
            _ => {
                process.signal("-STOP");
                self.tell(&format!("{name} stands still for {pause:.1?}"));
                tokio::time::sleep(pause).await;
                self.replicas[one].server.process.signal("-CONT");
            }
        }
    }

    async fn fault_of_way(&mut self, kind: usize, one: usize, pause: Duration) {
        let (what, proxy) = match kind {
            4 | 5 => ("the database", &self.replicas[one].database),
            6 => ("the other replicas", &self.replicas[one].peers),
            _ => ("agents", &self.ways[one]),
        };
        let (to, back) = [(true, true), (true, false), (false, true)][self.random.below(3)];
        self.tell(&format!(
            "replica-{one} and {what}: nothing moves for {pause:.1?} ({to}, {back})"
        ));
        proxy.stall_ways(to, back);
        tokio::time::sleep(pause).await;
        if self.random.below(2) == 0 {
            proxy.cut();
        }
        proxy.open();
    }

    async fn fault_of_agent(&mut self, dies: bool, one: usize, pause: Duration) {
        if dies {
            self.agents[one].kill();
            self.tell(&format!("agent {one} is killed, and started after {pause:.1?}"));
            tokio::time::sleep(pause).await;
            self.agents[one] = self.agent(one);
        } else {
            self.agents[one].signal("-STOP");
            self.tell(&format!("agent {one} stands still for {pause:.1?}"));
            tokio::time::sleep(pause).await;
            self.agents[one].signal("-CONT");
        }
    }
}

fn loopback(state: &str) {
    let done = Command::new("ip").args(["link", "set", "lo", state]).status();
    assert!(done.unwrap().success(), "the network is this test's own");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not `{text}`")))
}

/// Where nothing is asked for, the seed is another one each time.
#[expect(clippy::disallowed_methods, reason = "another seed each time is what is wanted")]
fn any_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::from(since.subsec_nanos()) ^ since.as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes: make chaos"]
async fn faults_at_random_moments_lose_and_repeat_nothing() {
    let Some(minutes) = number(MINUTES_VARIABLE) else { return };
    let seed = number(SEED_VARIABLE).unwrap_or_else(any_seed);
    let mut chaos = Chaos::start(seed).await;
    chaos.tell(&format!("{minutes} minutes of chaos; again: make chaos CHAOS_SEED={seed}"));
    let mut faults = 0;
    for round in 1.. {
        let load = chaos.load(round);
        while !load.is_asked() {
            let pause = chaos.random.pause(Duration::from_secs(3));
            tokio::time::sleep(pause).await;
            chaos.fault().await;
            faults += 1;
        }
        let promised = load.promised();
        load.ends_well().await;
        chaos.tell(&format!("round {round}: {promised} promises kept, {faults} faults so far"));
        if chaos.began.elapsed() >= Duration::from_secs(60 * minutes) {
            return;
        }
    }
}
