//! What stands between a replica and the store: time, faults, and the replica's own death.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use store::Error;
use store::testing::memory::{Access, Gate};

use crate::conditions::StoreFaults;
use crate::history::History;
use crate::machine::Fate;
use crate::random::Random;
use crate::world::Weather;

pub(crate) struct SimulatedGate {
    pub(crate) faults: StoreFaults,
    pub(crate) random: Mutex<Random>,
    pub(crate) weather: Weather,
    /// Dead, the replica hears no answer any more; cut off, it does not reach the store.
    pub(crate) fate: Fate,
    pub(crate) history: History,
}

impl SimulatedGate {
    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a fault of this share of a thousand is met now.
    fn meets(&self, share: u64, what: &'static str) -> bool {
        let meets = !self.weather.is_calm() && self.draw(|random| random.permille(share));
        if meets {
            self.history.fault(what);
        }
        meets
    }

    fn unavailable() -> Error {
        Error::Unavailable("simulated".to_owned())
    }

    fn unknown(access: Access) -> Error {
        match access {
            Access::Read => Self::unavailable(),
            _ => Error::Unknown("simulated".to_owned()),
        }
    }
}

/// Nothing comes any more.
async fn silence() -> Result<(), Error> {
    std::future::pending().await
}

#[async_trait]
impl Gate for SimulatedGate {
    async fn before(&self, access: Access) -> Result<(), Error> {
        self.fate.pause.over().await;
        if self.fate.away.is_on() && self.draw(|random| random.one_in(2)) {
            // Some wait until the way is there again; what they ask comes late.
            self.fate.away.over().await;
        }
        if self.fate.dead.is_cancelled() {
            return silence().await;
        }
        let is_cut_off = self.fate.cut_off.is_cancelled() || self.fate.away.is_on();
        if self.weather.is_out() || is_cut_off {
            // Some notice at once, others wait for a while.
            let wait = self.draw(|random| random.millis(0, 500));
            tokio::time::sleep(wait).await;
            return Err(Self::unavailable());
        }
        let latency = self.faults.latency.as_millis().try_into().unwrap_or(0_u64) + 1;
        let mut wait = self.draw(|random| random.millis(0, latency));
        if self.meets(self.faults.slow, "slow store") {
            wait += self.draw(|random| random.millis(500, 15_000));
        }
        tokio::select! {
            biased;
            () = self.fate.dead.cancelled() => {
                // What was on its way arrives, late perhaps, or never does.
                let arrives = self.draw(|random| random.one_in(2));
                if access == Access::Read || !arrives {
                    return silence().await;
                }
                let late = self.draw(|random| random.millis(0, 8_000));
                tokio::time::sleep(late).await;
                self.history.fault("write of a dead replica");
                return Ok(());
            }
            () = tokio::time::sleep(wait) => {}
        }
        if self.meets(self.faults.unavailable, "unavailable store") {
            return Err(Self::unavailable());
        }
        if self.meets(self.faults.unknown, "write lost, outcome unknown") {
            return Err(Self::unknown(access));
        }
        Ok(())
    }

    async fn after(&self, access: Access) -> Result<(), Error> {
        self.fate.pause.over().await;
        if self.fate.dead.is_cancelled() {
            return silence().await;
        }
        let wait = self.draw(|random| random.millis(0, 3));
        tokio::select! {
            biased;
            () = self.fate.dead.cancelled() => return silence().await,
            () = tokio::time::sleep(wait) => {}
        }
        self.fate.pause.over().await;
        if self.fate.away.is_on() {
            return Err(Self::unknown(access));
        }
        let share = match access {
            Access::TakeOver => self.faults.unknown_take_over,
            _ => self.faults.unknown,
        };
        if self.meets(share, "written, outcome unknown") {
            let late = self.draw(|random| random.one_in(2));
            if late {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            return Err(Self::unknown(access));
        }
        Ok(())
    }
}
