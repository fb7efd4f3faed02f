//! A steady load over a long time: memory and latency must stay where they are. The load is far
//! below what the server can carry, so what grows, grows by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use crate::SoakArgs;
use crate::host::agents::Agents;
use crate::host::database::Database;
use crate::host::server::Server;
use crate::host::usage;
use crate::measure::AGENTS;
use crate::open_loop::OpenLoop;
use crate::statistics::{Spread, median, slope};
use crate::workload::Workload;

/// How often it is looked.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// With fewer samples than this nothing can be said about growth.
const SAMPLES_MIN: usize = 8;
/// Memory may grow by this share from the second quarter's middle to the end, and
const MEMORY_GROWTH_MAX: f64 = 0.10;
/// by so much besides: what allocators and caches take in their time.
const MEMORY_SLACK_MB: f64 = 15.0;
/// The p99 of the last quarter may be this many times that of the second, and
const LATENCY_FACTOR_MAX: f64 = 2.0;
/// so much besides: the machine may have other things to do.
const LATENCY_SLACK_MS: f64 = 25.0;
/// How many slots each agent has.
const SLOTS: u32 = 1_000;

/// What was seen at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rss_mb: f64,
    p99_ms: f64,
}

/// Keeps the load up, prints what it sees, and fails when something grows.
pub(crate) async fn run(binary: &Path, args: &SoakArgs) -> anyhow::Result<()> {
    let database = Database::new(args.store).await?;
    let server = Server::start(binary, &database)?;
    let agents = Agents::start(AGENTS, SLOTS, &server).await?;
    let load = OpenLoop {
        workload: Workload::Chain,
        runs_per_second: args.runs_per_second,
        counts: Arc::default(),
        stop: CancellationToken::new(),
    };
    let mut loading = tokio::spawn(load.clone().run(server.url.clone()));
    let until = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let mut samples = Vec::new();
    let mut before = 0;
    println!(
        "{:>8} {:>10} {:>9} {:>9} {:>9} {:>8}",
        "s", "runs", "runs/s", "p50 ms", "p99 ms", "RSS MB"
    );
    let mut ticks =
        tokio::time::interval_at(tokio::time::Instant::now() + SAMPLE_EVERY, SAMPLE_EVERY);
    while Instant::now() + SAMPLE_EVERY <= until + SAMPLE_EVERY / 2 {
        tokio::select! {
            _ = ticks.tick() => {}
            ended = &mut loading => {
                ended??;
                bail!("the load ended by itself");
            }
        }
        let counts = load.look();
        let spread = Spread::of(counts.micros);
        let rss_mb = usage::resident_mb(server.process.id())?;
        let rate = (counts.ended - before) as f64 / SAMPLE_EVERY.as_secs_f64();
        before = counts.ended;
        samples.push(Sample { rss_mb, p99_ms: spread.p99_ms });
        println!(
            "{:>8} {:>10} {rate:>9.0} {:>9.2} {:>9.2} {rss_mb:>8.1}",
            samples.len() as u64 * SAMPLE_EVERY.as_secs(),
            counts.ended,
            spread.p50_ms,
            spread.p99_ms,
        );
    }
    load.stop.cancel();
    loading.await??;
    let ended = load.look().ended;
    let counted = agents.end().await?;
    server.process.end().await?;
    let steps = ended * u64::from(Workload::Chain.steps());
    if counted.tasks != steps {
        bail!("the runs had {steps} steps, and the agents did {} tasks", counted.tasks);
    }
    match judge(&samples) {
        Ok(said) => println!("{ended} runs, none lost and none twice; {said}"),
        Err(why) => bail!("{why}"),
    }
    Ok(())
}

/// Whether memory and latency stayed: from the second quarter on, since the first warms up.
fn judge(samples: &[Sample]) -> Result<String, String> {
    if samples.len() < SAMPLES_MIN {
        return Ok(format!("{} samples are too few to speak of growth", samples.len()));
    }
    let quarter = samples.len() / 4;
    let settled = &samples[quarter..];
    let (second, last) = (&settled[..quarter], &settled[settled.len() - quarter..]);
    let middle = |part: &[Sample], of: fn(&Sample) -> f64| {
        median(&part.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let memory: Vec<f64> = settled.iter().map(|sample| sample.rss_mb).collect();
    // The fitted line, not the last sample: one peak is no growth.
    let grown = slope(&memory) * memory.len() as f64;
    let level = middle(second, |sample| sample.rss_mb);
    let allowed = level * MEMORY_GROWTH_MAX + MEMORY_SLACK_MB;
    let (early, late) = (middle(second, |it| it.p99_ms), middle(last, |it| it.p99_ms));
    let said = format!(
        "memory {level:.0} MB, growing by {grown:.1} MB over three quarters of the time (at most \
         {allowed:.1}); p99 of a run {early:.1} ms in the second quarter, {late:.1} ms in the last"
    );
    if grown > allowed {
        return Err(format!("memory grows: {said}"));
    }
    if late > early * LATENCY_FACTOR_MAX + LATENCY_SLACK_MS {
        return Err(format!("latency grows: {said}"));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(of: impl Fn(usize) -> (f64, f64)) -> Vec<Sample> {
        let sample = |(rss_mb, p99_ms)| Sample { rss_mb, p99_ms };
        (0..40).map(of).map(sample).collect()
    }

    #[test]
    fn what_stays_passes_though_it_warms_up_and_swings() {
        let warm = |n: usize| if n < 8 { 30.0 + n as f64 * 10.0 } else { 110.0 };
        let swing = |n: usize| if n.is_multiple_of(2) { 3.0 } else { -3.0 };
        judge(&series(|n| (warm(n) + swing(n), 5.0 + swing(n)))).unwrap();
    }

    #[test]
    fn a_slow_leak_and_a_slow_decline_are_found() {
        let leak = judge(&series(|n| (100.0 + n as f64, 5.0))).unwrap_err();
        assert!(leak.starts_with("memory grows"), "{leak}");
        let decline =
            judge(&series(|n| (100.0, 5.0 + n.saturating_sub(20) as f64 * 4.0))).unwrap_err();
        assert!(decline.starts_with("latency grows"), "{decline}");
    }
}
