//! The action `collect_metrics`: how this machine and this process are. The figures come from
//! the system, never from a guess; where the system does not tell, it is said.

use std::fs;
use std::io;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::limits;

/// What `collect_metrics` gives.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Metrics {
    /// The processors.
    pub cpu: Cpu,
    /// The load averages.
    pub load: Load,
    /// The memory.
    pub memory: Memory,
    /// The disk on which the agent works.
    pub disk: Disk,
    /// The agent's own process.
    pub process: OwnProcess,
    /// How long the machine has been up, in seconds.
    pub uptime_seconds: f64,
    /// When the figures were taken, in RFC 3339.
    pub collected_at: String,
}

/// The processors.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Cpu {
    /// How many there are.
    pub count: u32,
    /// How busy they were just now, 0 to 1.
    pub used_ratio: f64,
}

/// The load averages over minutes.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Load {
    /// Over one minute.
    pub one: f64,
    /// Over five minutes.
    pub five: f64,
    /// Over fifteen minutes.
    pub fifteen: f64,
}

/// The memory.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Memory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What programs can still have, in bytes.
    pub available_bytes: u64,
    /// The share that is used, 0 to 1.
    pub used_ratio: f64,
}

/// A disk.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Disk {
    /// The folder that was looked at.
    pub path: String,
    /// The size, in bytes.
    pub total_bytes: u64,
    /// What can still be written, in bytes.
    pub available_bytes: u64,
    /// The share that is used, 0 to 1.
    pub used_ratio: f64,
}

/// The agent's own process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OwnProcess {
    /// Its id.
    pub id: u32,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Its threads.
    pub threads: u64,
}

/// Takes all figures. The processors are watched for a moment.
pub async fn collect(collected_at: String) -> io::Result<Metrics> {
    let before = Ticks::parse(&read("stat")?)?;
    tokio::time::sleep(limits::CPU_SAMPLE).await;
    let after_text = read("stat")?;
    let after = Ticks::parse(&after_text)?;
    let status = read("self/status")?;
    let uptime = read("uptime")?;
    Ok(Metrics {
        cpu: Cpu { count: processors(&after_text), used_ratio: after.used_since(before) },
        load: parse_load(&read("loadavg")?)?,
        memory: parse_memory(&read("meminfo")?)?,
        disk: disk(&std::env::current_dir()?)?,
        process: OwnProcess {
            id: std::process::id(),
            memory_bytes: field(&status, "VmRSS")? * 1024,
            threads: field(&status, "Threads")?,
        },
        uptime_seconds: number(&uptime, 0, "uptime")?,
        collected_at,
    })
}

fn read(name: &str) -> io::Result<String> {
    let path = Path::new("/proc").join(name);
    let explain = |error: io::Error| {
        io::Error::new(error.kind(), format!("{} cannot be read: {error}", path.display()))
    };
    fs::read_to_string(&path).map_err(explain)
}

fn wrong(what: &str) -> io::Error {
    let message = format!("`{what}` of /proc is not as expected");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// What the processors have done since the machine came up.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    fn parse(stat: &str) -> io::Result<Self> {
        let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
        let line = line.ok_or_else(|| wrong("stat"))?;
        let parsed: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        let ticks = parsed.map_err(|_| wrong("stat"))?;
        // user nice system idle iowait irq softirq steal; guests are within user and nice.
        let idle = ticks.iter().skip(3).take(2).sum();
        let all = ticks.iter().take(8).sum();
        Ok(Self { idle, all })
    }

    fn used_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let idle = self.idle.saturating_sub(before.idle).min(all);
        share(all - idle, all)
    }
}

fn processors(stat: &str) -> u32 {
    let is_one = |line: &&str| {
        let rest = line.strip_prefix("cpu");
        rest.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    };
    u32::try_from(stat.lines().filter(is_one).count()).unwrap_or(u32::MAX)
}

fn number(text: &str, index: usize, what: &str) -> io::Result<f64> {
    let word = text.split_whitespace().nth(index);
    word.and_then(|word| word.parse().ok()).ok_or_else(|| wrong(what))
}

fn parse_load(text: &str) -> io::Result<Load> {
    Ok(Load {
        one: number(text, 0, "loadavg")?,
        five: number(text, 1, "loadavg")?,
        fifteen: number(text, 2, "loadavg")?,
    })
}

fn parse_memory(text: &str) -> io::Result<Memory> {
    let total_bytes = field(text, "MemTotal")? * 1024;
    let available_bytes = field(text, "MemAvailable")? * 1024;
    Ok(Memory {
        total_bytes,
        available_bytes,
        used_ratio: share(total_bytes.saturating_sub(available_bytes), total_bytes),
    })
}

/// The number of a line `name:   123 kB`.
fn field(text: &str, name: &str) -> io::Result<u64> {
    let value = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        rest.split_whitespace().next()?.parse().ok()
    });
    value.ok_or_else(|| wrong(name))
}

fn disk(path: &Path) -> io::Result<Disk> {
    let figures = rustix::fs::statvfs(path)?;
    let total_bytes = figures.f_blocks.saturating_mul(figures.f_frsize);
    let free_bytes = figures.f_bfree.saturating_mul(figures.f_frsize);
    Ok(Disk {
        path: path.display().to_string(),
        total_bytes,
        // Some of what is free is kept for the administrator.
        available_bytes: figures.f_bavail.saturating_mul(figures.f_frsize),
        used_ratio: share(total_bytes.saturating_sub(free_bytes), total_bytes),
    })
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs four digits")]
    let ratio = part as f64 / whole as f64;
    (ratio * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_busy_for_what_is_not_idle() {
        let before = Ticks::parse("cpu  100 0 50 800 50 0 0 0 9 9\ncpu0 1\n").unwrap();
        let after = Ticks::parse("cpu  160 0 70 900 70 0 0 0 9 9\ncpu0 1\n").unwrap();
        assert_eq!(after.used_since(before).to_string(), "0.4");
        assert_eq!(after.used_since(after).to_string(), "0");
        assert_eq!(processors("cpu  1\ncpu0 1\ncpu1 1\nctxt 1\n"), 2);
        assert!(Ticks::parse("cpu x").is_err());
    }

    #[test]
    fn memory_and_load_are_read() {
        let memory = parse_memory("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n");
        let expect = Memory { total_bytes: 1_024_000, available_bytes: 256_000, used_ratio: 0.75 };
        assert_eq!(memory.unwrap(), expect);
        let load = parse_load("0.69 0.57 0.44 2/112 2591\n").unwrap();
        assert_eq!((load.one, load.fifteen), (0.69, 0.44));
        assert!(parse_memory("").is_err());
    }

    #[tokio::test]
    async fn the_figures_are_those_of_this_machine() {
        let metrics = collect("now".to_owned()).await.unwrap();
        assert!(metrics.cpu.count > 0);
        assert!((0.0..=1.0).contains(&metrics.cpu.used_ratio));
        assert!(metrics.memory.available_bytes <= metrics.memory.total_bytes);
        assert!(metrics.disk.total_bytes > 0);
        assert!(metrics.process.memory_bytes > 0);
        assert_eq!(metrics.process.id, std::process::id());
    }
}
