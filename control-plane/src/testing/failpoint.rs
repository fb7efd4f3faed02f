//! Has this process die between the moment in which a transition of a run is durable and that in
//! which its effects are carried out: nothing is told to anybody any more.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// Behind how many durable transitions the process dies; 0: never.
static DIE_BEHIND: AtomicU64 = AtomicU64::new(0);
static DURABLE: AtomicU64 = AtomicU64::new(0);

/// Has the process die, by SIGKILL, right behind the commit of its transition `number`, from 1.
pub fn die_behind(number: u64) {
    DIE_BEHIND.store(number, Ordering::SeqCst);
}

/// How many transitions have become durable in this process.
#[must_use]
pub fn durable_transitions() -> u64 {
    DURABLE.load(Ordering::SeqCst)
}

/// A transition is durable, and nothing of it is carried out.
pub(crate) fn durable() {
    let number = DURABLE.fetch_add(1, Ordering::SeqCst) + 1;
    if number == DIE_BEHIND.load(Ordering::SeqCst) {
        let pid = std::process::id().to_string();
        drop(Command::new("kill").args(["-KILL", &pid]).status());
        // The signal is on its way; nothing else may happen here.
        loop {
            std::thread::park();
        }
    }
}
