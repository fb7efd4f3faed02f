//! The machine: what it is, and how fast it makes a write durable.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::statistics::percentile;

/// How many writes the probe makes durable.
const PROBES: usize = 100;
/// How large they are.
const PROBE_BYTES: usize = 8 * 1024;

/// What the figures were taken on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: f64,
    pub(crate) kernel: String,
    /// The file system that databases lie on.
    pub(crate) file_system: String,
    /// Half of the writes of 8 KiB with fdatasync take at most this.
    pub(crate) fdatasync_p50_ms: f64,
    /// Tasks that ran on average in the minute before: more than none mean that it was shared.
    pub(crate) load_before: f64,
}

impl Machine {
    /// Looks at it.
    pub(crate) fn look() -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kilobytes: f64 = kilobytes.trim_end_matches("kB").trim().parse().unwrap_or(0.0);
        let load = read("/proc/loadavg");
        Ok(Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism()?.get(),
            memory_gb: (kilobytes * 1024.0 / 1e9).round(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&std::env::temp_dir()),
            fdatasync_p50_ms: probe(&std::env::temp_dir())?,
            load_before: load.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(0.0),
        })
    }

    /// In one sentence.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "{} cores of {}, {:.0} GB, Linux {}, data on {} (8 KiB write with fdatasync: p50 \
             {:.2} ms), load average before {:.1}",
            self.cores,
            if self.cpu.is_empty() { "an unnamed processor" } else { &self.cpu },
            self.memory_gb,
            self.kernel,
            self.file_system,
            self.fdatasync_p50_ms,
            self.load_before,
        )
    }
}

/// The type of the file system that a folder lies on: that of the longest mount point above it.
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = mounts.filter(|(point, _)| folder.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map_or_else(String::new, |(_, kind)| kind.to_owned())
}

fn probe(folder: &Path) -> anyhow::Result<f64> {
    let file = tempfile::Builder::new().prefix("bench-probe-").tempfile_in(folder)?;
    let mut writer: &File = file.as_file();
    let mut micros = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let began = Instant::now();
        writer.write_all(&[7; PROBE_BYTES])?;
        writer.sync_data()?;
        micros.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    micros.sort_unstable();
    Ok(percentile(&micros, 50) as f64 / 1000.0)
}
