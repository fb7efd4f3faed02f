//! What is run: workflows of no-op steps, and how many steps each of their runs has.
//!
//! A fan-out is one step with 99 parallel members: a hundred tasks that are ready at once and
//! journaled each by itself, as when a person writes them. `foreach` is the same over a list.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;

/// The agent type that does all steps.
pub(crate) const AGENT: &str = "bench";
/// The action that does nothing.
pub(crate) const NOOP: &str = "noop";
/// The action that waits to be cancelled, and says when it was.
pub(crate) const HOLD: &str = "hold";

/// The action that does nothing for a while.
pub(crate) const NAP: &str = "nap";

/// How long a nap is.
pub(crate) const NAP_TIME: Duration = Duration::from_secs(2);
/// How many steps a run of naps has.
const NAPS_STEPS: u32 = 8;
/// How many steps a chain has.
const CHAIN_STEPS: u32 = 5;
/// How wide a fan-out is.
const FAN_OUT_STEPS: u32 = 100;

/// A kind of workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Five steps, one behind the other.
    Chain,
    /// A hundred steps side by side.
    FanOut,
    /// One step for each of a hundred items.
    Foreach,
    /// Eight steps, one behind the other, each of two seconds.
    Naps,
    /// One step that waits to be cancelled.
    Hold,
    /// One step that waits for a signal: no agent is needed.
    Park,
}

impl Workload {
    /// Its name in tables and in the summary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::FanOut => "fan-out",
            Self::Foreach => "foreach",
            Self::Naps => "naps",
            Self::Hold => "hold",
            Self::Park => "park",
        }
    }

    /// How many tasks agents do for one run.
    pub(crate) fn steps(self) -> u32 {
        match self {
            Self::Chain => CHAIN_STEPS,
            Self::FanOut | Self::Foreach => FAN_OUT_STEPS,
            Self::Naps => NAPS_STEPS,
            Self::Hold => 1,
            Self::Park => 0,
        }
    }

    /// Its definition.
    pub(crate) fn yaml(self) -> String {
        let mut yaml = format!("name: bench-{}\nsteps:\n", self.name());
        let written = match self {
            Self::Chain => (0..CHAIN_STEPS).try_for_each(|n| {
                writeln!(yaml, "  - {{id: s{n}, agent: {AGENT}, action: {NOOP}}}")
            }),
            Self::FanOut => {
                yaml += &format!("  - id: s0\n    agent: {AGENT}\n    action: {NOOP}\n");
                yaml += "    parallel:\n";
                (1..FAN_OUT_STEPS).try_for_each(|n| {
                    writeln!(yaml, "      - {{id: s{n}, agent: {AGENT}, action: {NOOP}}}")
                })
            }
            Self::Foreach => {
                let items: Vec<String> = (0..FAN_OUT_STEPS).map(|n| n.to_string()).collect();
                let items = items.join(", ");
                writeln!(
                    yaml,
                    "  - id: s\n    foreach: [{items}]\n    agent: {AGENT}\n    action: {NOOP}"
                )
            }
            Self::Naps => (0..NAPS_STEPS).try_for_each(|n| {
                writeln!(yaml, "  - {{id: s{n}, agent: {AGENT}, action: {NAP}}}")
            }),
            Self::Hold => {
                writeln!(yaml, "  - {{id: s, agent: {AGENT}, action: {HOLD}, timeout: 600s}}")
            }
            Self::Park => writeln!(yaml, "  - {{id: s, wait_for: {{signal: go}}}}"),
        };
        written.expect("a string takes all that is written to it");
        yaml
    }
}
