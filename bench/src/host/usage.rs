//! CPU time and memory of processes, as the kernel counts them. Linux alone.

use std::fs;

use anyhow::Context as _;

/// CPU time of a process that runs, in microseconds, its own and that of children it has waited
/// for.
pub(crate) fn cpu_micros(process: u32) -> anyhow::Result<u64> {
    let fields = stat(process)?;
    // utime, stime, cutime, cstime; counted from the third field on.
    let ticks: u64 = fields.get(11..15).context("the kernel's line is short")?.iter().sum();
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// CPU time of a process and of all its children, in microseconds.
pub(crate) fn family_cpu_micros(parent: u32) -> anyhow::Result<u64> {
    let mut sum = cpu_micros(parent)?;
    for child in children(parent)? {
        // One that is gone by now counts as waited for.
        sum += cpu_micros(child).unwrap_or(0);
    }
    Ok(sum)
}

/// The most memory that a process has had resident, in megabytes.
pub(crate) fn peak_mb(process: u32) -> anyhow::Result<f64> {
    memory_mb(process, "VmHWM:")
}

/// The memory that a process has resident, in megabytes.
pub(crate) fn resident_mb(process: u32) -> anyhow::Result<f64> {
    memory_mb(process, "VmRSS:")
}

fn memory_mb(process: u32, field: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("process {process} cannot be looked at"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes: f64 = line
        .and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok())
        .with_context(|| format!("the kernel says nothing of {field}"))?;
    Ok(kilobytes * 1024.0 / 1_000_000.0)
}

fn children(parent: u32) -> anyhow::Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .with_context(|| format!("the children of process {parent} cannot be listed"))?;
    Ok(text.split_whitespace().filter_map(|id| id.parse().ok()).collect())
}

/// The numbers behind the process's name and state, which is in brackets and may hold anything.
fn stat(process: u32) -> anyhow::Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))
        .with_context(|| format!("process {process} cannot be looked at"))?;
    let behind = text.rsplit_once(')').context("the kernel's line has a name")?.1;
    // The state is a letter, and some fields may be negative: neither is asked for.
    Ok(behind.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let me = std::process::id();
        let before = cpu_micros(me).unwrap();
        let mut sum = 0_u64;
        while cpu_micros(me).unwrap() < before + 20_000 {
            sum = (0..100_000_u64).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        assert!(family_cpu_micros(me).unwrap() >= before + 20_000);
        let (resident, peak) = (resident_mb(me).unwrap(), peak_mb(me).unwrap());
        assert!(resident > 0.1 && peak >= resident * 0.9, "{resident} {peak}");
    }
}
