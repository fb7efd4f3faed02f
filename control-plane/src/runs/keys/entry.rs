//! What stands in the row of one key: who holds it, who waits for it, how much of a rate limit is
//! left. Pure: the row's text in, the row's text and verdicts out. It knows neither store nor
//! clock, so that every replica comes to the same row.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use engine::effect::Acquire;
use engine::event::KeyKind;
use engine::graph::OnConflict;
use engine::{Command, InstanceId, Instant, RunId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// Who holds a key or waits for it: a run, or a step of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Holder {
    pub(crate) run: RunId,
    pub(crate) instance: Option<InstanceId>,
}

/// What a run is to be told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) holder: Holder,
    pub(crate) command: Command,
}

/// What is asked of a key. The same asked again changes nothing.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// The holder wants the key, or has it from before.
    Acquire(Arc<Acquire>),
    /// The holder gives it back, or does not wait any longer.
    Release,
    /// Time has passed.
    Tick,
    /// A holder was perhaps not told to stop.
    Remind,
}

/// The row of one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// So many at once.
    Concurrency(Concurrency),
    /// So many in a time.
    Rate(Rate),
}

/// A concurrency key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Concurrency {
    pub(super) holders: Vec<Holder>,
    /// Who was told to stop for another.
    pub(super) displaced: Vec<Holder>,
    pub(super) waiting: VecDeque<Waiting>,
}

/// Who waits for a concurrency key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) holder: Holder,
    limit: u32,
    /// A holder is to stop for it.
    displaces: bool,
}

/// A rate limit: a bucket of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rate {
    tokens: f64,
    limit: u32,
    per: Duration,
    /// When `tokens` was right.
    at: i64,
    pub(super) waiting: VecDeque<Holder>,
}

impl Entry {
    /// What a key is that no row tells of.
    pub(super) fn new(which: KeyKind) -> Self {
        match which {
            KeyKind::Concurrency => Self::Concurrency(Concurrency::default()),
            KeyKind::Rate => Self::Rate(Rate {
                tokens: f64::INFINITY,
                limit: 0,
                per: Duration::from_secs(1),
                at: i64::MIN,
                waiting: VecDeque::new(),
            }),
        }
    }

    /// Does what is asked of the key `key`.
    pub(super) fn apply(
        &mut self,
        key: &Arc<str>,
        holder: Option<Holder>,
        ask: &Ask,
        now: Instant,
    ) -> Vec<Verdict> {
        match (self, ask, holder) {
            (Self::Concurrency(entry), Ask::Acquire(acquire), Some(holder)) => {
                entry.acquire(key, holder, acquire)
            }
            (Self::Concurrency(entry), Ask::Release, Some(holder)) => entry.release(key, holder),
            (Self::Concurrency(entry), Ask::Remind, Some(holder)) => {
                let told = entry.displaced.contains(&holder);
                told.then(|| displaced(holder, key)).into_iter().collect()
            }
            (Self::Rate(rate), Ask::Acquire(acquire), Some(holder)) => {
                rate.acquire(holder, acquire, now)
            }
            (Self::Rate(rate), Ask::Release, Some(holder)) => {
                rate.waiting.retain(|other| *other != holder);
                Vec::new()
            }
            (Self::Rate(rate), Ask::Tick, _) => rate.grant(now),
            _ => Vec::new(),
        }
    }

    /// Whether the holder has its place in the row until it gives it back: one that a rate limit
    /// lets through stands in it no longer, whether or not it was told.
    pub(super) fn keeps_place(&self, holder: Holder) -> bool {
        match self {
            Self::Concurrency(entry) => entry.waiting.iter().any(|other| other.holder == holder),
            Self::Rate(_) => false,
        }
    }

    /// Whether the holder has the key.
    pub(super) fn has(&self, holder: Holder) -> bool {
        matches!(self, Self::Concurrency(entry) if entry.holders.contains(&holder))
    }

    /// Whether the row says no more than no row would.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        match self {
            Self::Concurrency(entry) => entry.holders.is_empty() && entry.waiting.is_empty(),
            Self::Rate(rate) => rate.waiting.is_empty() && rate.is_full(now),
        }
    }

    /// When a rate limit lets the next one through that waits.
    pub(super) fn next_token(&self) -> Option<Instant> {
        match self {
            Self::Concurrency(_) => None,
            Self::Rate(rate) => rate.next_token(),
        }
    }

    /// All who hold it and all who wait for it.
    pub(super) fn everybody(&self) -> Vec<Holder> {
        match self {
            Self::Concurrency(entry) => {
                let waiting = entry.waiting.iter().map(|waiting| waiting.holder);
                entry.holders.iter().copied().chain(waiting).collect()
            }
            Self::Rate(rate) => rate.waiting.iter().copied().collect(),
        }
    }
}

impl Concurrency {
    fn acquire(&mut self, key: &Arc<str>, holder: Holder, acquire: &Acquire) -> Vec<Verdict> {
        if self.holders.contains(&holder) {
            return if acquire.held { Vec::new() } else { vec![granted(holder, acquire.which)] };
        }
        if acquire.held {
            self.waiting.retain(|waiting| waiting.holder != holder);
            self.holders.push(holder);
            return Vec::new();
        }
        if self.waiting.iter().any(|waiting| waiting.holder == holder) {
            return Vec::new();
        }
        let full = self.holders.len() >= acquire.limit as usize;
        if full && acquire.on_conflict == OnConflict::Reject {
            let count = self.holders.len();
            let reason = format!("concurrency key `{key}` is taken by {count} already");
            return vec![refused(holder, &reason)];
        }
        if self.waiting.len() >= limits::KEY_WAITING_MAX {
            let max = limits::KEY_WAITING_MAX;
            return vec![refused(holder, &format!("{max} wait for the key `{key}` already"))];
        }
        let displaces = acquire.on_conflict == OnConflict::CancelRunning;
        self.waiting.push_back(Waiting { holder, limit: acquire.limit, displaces });
        self.grant(key)
    }

    fn release(&mut self, key: &Arc<str>, holder: Holder) -> Vec<Verdict> {
        self.holders.retain(|other| *other != holder);
        self.displaced.retain(|other| *other != holder);
        self.waiting.retain(|waiting| waiting.holder != holder);
        self.grant(key)
    }

    fn grant(&mut self, key: &Arc<str>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        while let Some(&Waiting { holder, limit, .. }) = self.waiting.front() {
            if self.holders.len() >= limit as usize {
                break;
            }
            self.waiting.pop_front();
            self.holders.push(holder);
            verdicts.push(granted(holder, KeyKind::Concurrency));
        }
        self.displace(key, &mut verdicts);
        verdicts
    }

    /// For each who waits and wants a holder to stop, the oldest that was not told yet is told.
    fn displace(&mut self, key: &Arc<str>, verdicts: &mut Vec<Verdict>) {
        let Self { holders, displaced: told, waiting } = self;
        // No more are counted than there are holders to be told.
        let demands = waiting.iter().filter(|waiting| waiting.displaces).take(holders.len());
        let demands = demands.count();
        for &oldest in holders.iter() {
            if told.len() >= demands {
                return;
            }
            if !told.contains(&oldest) {
                told.push(oldest);
                verdicts.push(displaced(oldest, key));
            }
        }
    }
}

impl Verdict {
    /// The kind of key that it is about; of a refusal all.
    pub(crate) fn which(&self) -> Option<KeyKind> {
        match &self.command {
            Command::Granted { which, .. } => Some(*which),
            _ => None,
        }
    }
}

impl Rate {
    fn acquire(&mut self, holder: Holder, acquire: &Acquire, now: Instant) -> Vec<Verdict> {
        if acquire.held {
            return Vec::new();
        }
        self.refill(now);
        self.limit = acquire.limit;
        self.per = acquire.per.unwrap_or(Duration::from_secs(1));
        self.tokens = self.tokens.min(f64::from(self.limit));
        if !self.waiting.contains(&holder) {
            if self.waiting.len() >= limits::KEY_WAITING_MAX {
                let max = limits::KEY_WAITING_MAX;
                let reason = format!("{max} wait for the rate limit `{}` already", acquire.key);
                return vec![refused(holder, &reason)];
            }
            self.waiting.push_back(holder);
        }
        self.grant(now)
    }

    /// The tokens at `now`. The clock of another replica may be ahead; time does not run back.
    fn tokens_at(&self, now: Instant) -> f64 {
        let share = now.since(Instant(self.at)).as_secs_f64() / self.per.as_secs_f64().max(1e-6);
        (self.tokens + share * f64::from(self.limit)).min(f64::from(self.limit))
    }

    fn refill(&mut self, now: Instant) {
        if self.limit > 0 {
            self.tokens = self.tokens_at(now);
        }
        self.at = self.at.max(now.0);
    }

    fn grant(&mut self, now: Instant) -> Vec<Verdict> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.refill(now);
        let mut verdicts = Vec::new();
        while self.tokens >= 1.0 {
            let Some(holder) = self.waiting.pop_front() else { break };
            self.tokens -= 1.0;
            verdicts.push(granted(holder, KeyKind::Rate));
        }
        verdicts
    }

    fn next_token(&self) -> Option<Instant> {
        self.waiting.front()?;
        let missing = (1.0 - self.tokens).max(0.0) / f64::from(self.limit.max(1));
        let pause = self.per.mul_f64(missing) + Duration::from_millis(1);
        Some(Instant(self.at).after(pause))
    }

    fn is_full(&self, now: Instant) -> bool {
        self.tokens_at(now) >= f64::from(self.limit)
    }
}

fn granted(holder: Holder, which: KeyKind) -> Verdict {
    Verdict { holder, command: Command::Granted { instance: holder.instance, which } }
}

fn refused(holder: Holder, reason: &str) -> Verdict {
    let command = Command::Refused { instance: holder.instance, reason: reason.to_owned() };
    Verdict { holder, command }
}

fn displaced(holder: Holder, key: &Arc<str>) -> Verdict {
    let command = Command::Displaced { instance: holder.instance, key: Arc::clone(key) };
    Verdict { holder, command }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instance {
            Some(InstanceId(n)) => write!(f, "{}#{n}", self.run),
            None => self.run.fmt(f),
        }
    }
}

impl FromStr for Holder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` names no run or step");
        let (run, instance) = match text.split_once('#') {
            Some((run, n)) => (run, Some(InstanceId(n.parse().map_err(|_| wrong())?))),
            None => (text, None),
        };
        Ok(Self { run: run.parse().map_err(|_| wrong())?, instance })
    }
}

impl Serialize for Holder {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Holder {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
