//! Advice about agents: which to add, to drain or to move to other work, from what waits, how busy
//! they are and what is to be expected. Pure; nothing is done by it.
//!
//! What is to be expected is the rate of the last minutes, smoothed exponentially: a newer minute
//! counts more, and no single one much. The slots that a type needs are those for the expected
//! work at four fifths of their time, and those that clear what waits within a few minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How much the newest minute counts in the forecast.
const SMOOTHING: f64 = 0.3;
/// How busy slots should be: the rest is room for what comes in bursts.
const BUSY_TARGET: f64 = 0.8;
/// What waits should be begun within this.
const CLEAR_WITHIN: Duration = Duration::from_secs(300);
/// Waiting is nothing to act on before this.
const QUEUE_AGE_PATIENCE: Duration = Duration::from_secs(10);
/// An agent type less busy than this has agents to spare.
const IDLE_BELOW: f64 = 0.3;
/// How long a task takes of which nothing is known.
const DURATION_UNKNOWN: Duration = Duration::from_secs(10);
/// Advice to add names at most so many agents at once.
const ADD_MAX: u32 = 100;

/// What an agent type has to do, and with what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// The agent type; an alias where nobody of the type is there.
    pub agent: String,
    /// The agents that are there, by name.
    pub instances: Vec<Instance>,
    /// Tasks that wait for it.
    pub queued: u32,
    /// How long the first of these waits.
    pub oldest: Duration,
    /// Tasks that ended, by minute, the oldest first; the current minute left out.
    pub ended: Vec<u32>,
    /// How long a task takes.
    pub duration: Option<Duration>,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// How many tasks it can have at once.
    pub slots: u32,
    /// How many it has.
    pub busy: u32,
    /// It leaves already.
    pub draining: bool,
    /// It is connected to another replica, which lends some of its slots.
    pub lent: bool,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.queued = self.queued.saturating_add(other.queued);
        self.oldest = self.oldest.max(other.oldest);
        self.duration = match (self.duration, other.duration) {
            (Some(mine), Some(theirs)) => Some(mean([(mine, &self.ended), (theirs, &other.ended)])),
            (mine, theirs) => mine.or(theirs),
        };
        let lacking = other.ended.len().saturating_sub(self.ended.len());
        self.ended.splice(0..0, std::iter::repeat_n(0, lacking));
        // Both end with the same minute.
        for (mine, theirs) in self.ended.iter_mut().rev().zip(other.ended.into_iter().rev()) {
            *mine = mine.saturating_add(theirs);
        }
        for instance in other.instances {
            match self.instances.iter_mut().find(|known| known.name == instance.name) {
                Some(known) => known.add(instance),
                None => self.instances.push(instance),
            }
        }
    }
}

impl Instance {
    fn add(&mut self, other: Self) {
        self.busy = self.busy.saturating_add(other.busy);
        match (self.lent, other.lent) {
            (true, false) => {
                (self.slots, self.draining, self.lent) = (other.slots, other.draining, false);
            }
            (false, true) => {}
            // Lent by a replica that does not say more of it, or connected twice for a moment.
            _ => self.slots = self.slots.max(other.slots),
        }
    }
}

/// How long a task takes by what several saw, who saw more counting for more.
fn mean(seen: [(Duration, &Vec<u32>); 2]) -> Duration {
    let (mut seconds, mut weights) = (0.0, 0.0);
    for (duration, ended) in seen {
        let weight: f64 = ended.iter().map(|&count| f64::from(count)).sum::<f64>().max(1.0);
        seconds += duration.as_secs_f64() * weight;
        weights += weight;
    }
    Duration::from_secs_f64(seconds / weights)
}

/// What several replicas see, as one: each agent counts once, with the slots that it has where it
/// is connected and the tasks that it has of all.
#[must_use]
pub fn merged(seen: impl IntoIterator<Item = Load>) -> Vec<Load> {
    let mut loads: BTreeMap<String, Load> = BTreeMap::new();
    for load in seen {
        match loads.get_mut(&load.agent) {
            Some(known) => known.add(load),
            None => drop(loads.insert(load.agent.clone(), load)),
        }
    }
    loads.into_values().collect()
}

/// How many tasks agents of each type can have at once; of those that stay.
#[must_use]
pub fn slots(loads: &[Load]) -> BTreeMap<Arc<str>, u32> {
    let of = |load: &Load| {
        let staying = load.instances.iter().filter(|instance| !instance.draining);
        staying.fold(0, |sum: u32, instance| sum.saturating_add(instance.slots))
    };
    let slots = loads.iter().map(|load| (load.agent.as_str().into(), of(load)));
    slots.filter(|(_, slots)| *slots > 0).collect()
}

/// What is seen of an agent type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// The agent type.
    pub agent: String,
    /// Slots of agents that stay.
    pub slots: u32,
    /// Slots that are busy, of all, 0 to 1.
    pub utilisation: f64,
    /// Tasks a minute that are to be expected.
    pub forecast: f64,
    /// Slots that this and what waits need.
    pub needed: f64,
    /// Tasks that wait.
    pub queued: u32,
    /// How long the first of these waits.
    pub oldest: Duration,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Start more agents of the type.
    Add {
        /// How many.
        count: u32,
    },
    /// Let this one finish and leave.
    Drain {
        /// Its name.
        instance: String,
    },
    /// Let this one finish, and start one of another type in its place.
    Move {
        /// Its name.
        instance: String,
        /// The other type.
        to: String,
    },
}

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The agent type.
    pub agent: String,
    /// What to do.
    pub what: What,
    /// Why, in a sentence with the figures.
    pub reason: String,
}

/// What is seen, and what is advised, by agent type.
#[must_use]
pub fn advise(loads: &[Load]) -> (Vec<Figures>, Vec<Advice>) {
    let mut figures: Vec<(Figures, &Load)> = loads.iter().map(|load| (look(load), load)).collect();
    figures.sort_by(|(a, _), (b, _)| a.agent.cmp(&b.agent));
    let mut spare: Vec<(&Figures, &Instance)> =
        figures.iter().filter_map(|(seen, load)| Some((seen, to_spare(seen, load)?))).collect();
    spare.reverse();
    let mut advice = Vec::new();
    for (seen, load) in &figures {
        let missing = missing(seen, load);
        let mut count = missing;
        // What stands idle elsewhere comes first.
        while count > 0
            && let Some((from, instance)) = spare.pop()
        {
            count -= 1;
            let what = What::Move { instance: instance.name.clone(), to: seen.agent.clone() };
            let reason = format!("{}; {}", why_idle(from), why_short(seen));
            advice.push(Advice { agent: from.agent.clone(), what, reason });
        }
        if count > 0 {
            let what = What::Add { count };
            advice.push(Advice { agent: seen.agent.clone(), what, reason: why_short(seen) });
        }
    }
    spare.reverse();
    advice.extend(spare.into_iter().map(|(seen, instance)| Advice {
        agent: seen.agent.clone(),
        what: What::Drain { instance: instance.name.clone() },
        reason: why_idle(seen),
    }));
    (figures.into_iter().map(|(seen, _)| seen).collect(), advice)
}

fn look(load: &Load) -> Figures {
    let staying = || load.instances.iter().filter(|instance| !instance.draining);
    let slots: u32 = staying().map(|instance| instance.slots).sum();
    let busy: u32 = staying().map(|instance| instance.busy).sum();
    let duration = load.duration.unwrap_or(DURATION_UNKNOWN).as_secs_f64();
    let forecast = smoothed(&load.ended);
    let expected = forecast / 60.0 * duration / BUSY_TARGET;
    let waiting = f64::from(load.queued) * duration / CLEAR_WITHIN.as_secs_f64();
    // Agents that are busy with what is slow do not end much; they are needed all the same.
    let at_work = f64::from(busy.min(slots));
    Figures {
        agent: load.agent.clone(),
        slots,
        utilisation: if slots == 0 { 0.0 } else { at_work / f64::from(slots) },
        forecast,
        needed: expected.max(at_work) + waiting,
        queued: load.queued,
        oldest: load.oldest,
    }
}

/// The level of a series by exponential smoothing.
fn smoothed(series: &[u32]) -> f64 {
    let mut values = series.iter().map(|&count| f64::from(count));
    let Some(first) = values.next() else { return 0.0 };
    values.fold(first, |level, value| SMOOTHING * value + (1.0 - SMOOTHING) * level)
}

/// How many agents of the type are missing.
fn missing(seen: &Figures, load: &Load) -> u32 {
    let (slots, needed) = (f64::from(seen.slots), seen.needed);
    if seen.slots == 0 {
        return u32::from(seen.queued > 0);
    }
    let is_late = seen.queued > 0 && seen.oldest >= QUEUE_AGE_PATIENCE;
    if !is_late || needed <= slots {
        return 0;
    }
    let staying = load.instances.iter().filter(|instance| !instance.draining).count();
    let per_agent = slots / as_f64(staying.max(1));
    whole((needed - slots) / per_agent).clamp(1, ADD_MAX)
}

/// The agent that could go: the one with the fewest slots, when the others would do.
fn to_spare<'l>(seen: &Figures, load: &'l Load) -> Option<&'l Instance> {
    let staying: Vec<&Instance> =
        load.instances.iter().filter(|instance| !instance.draining).collect();
    if staying.len() < 2 || seen.queued > 0 || seen.utilisation >= IDLE_BELOW {
        return None;
    }
    let least = staying.into_iter().min_by_key(|agent| (agent.slots, agent.busy, &agent.name))?;
    let left = f64::from(seen.slots - least.slots);
    (seen.needed <= left).then_some(least)
}

fn why_short(seen: &Figures) -> String {
    let Figures { agent, slots, queued, oldest, forecast, needed, .. } = seen;
    if *slots == 0 {
        let seconds = oldest.as_secs();
        return format!(
            "{queued} tasks wait for `{agent}`, the first for {seconds} s, and no agent of this \
             type takes work"
        );
    }
    format!(
        "{queued} tasks wait for `{agent}`, the first for {} s; with {forecast:.1} tasks a minute \
         to be expected it needs {needed:.1} slots and has {slots}",
        oldest.as_secs()
    )
}

fn why_idle(seen: &Figures) -> String {
    let Figures { agent, slots, utilisation, forecast, needed, .. } = seen;
    format!(
        "`{agent}` has {slots} slots, of which {:.0}% are busy, and nothing waits; with \
         {forecast:.1} tasks a minute to be expected it needs {needed:.1}",
        utilisation * 100.0
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and cut at a bound by who asks"
)]
fn whole(count: f64) -> u32 {
    count.ceil().max(0.0) as u32
}

#[expect(clippy::cast_precision_loss, reason = "agents are few")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(agent: &str, agents: u32, busy: u32, queued: u32, ended: &[u32]) -> Load {
        let instance = |n| Instance {
            name: format!("{agent}-{n}"),
            slots: 2,
            busy: if n == 0 { busy } else { 0 },
            draining: false,
            lent: false,
        };
        Load {
            agent: agent.to_owned(),
            instances: (0..agents).map(instance).collect(),
            queued,
            oldest: Duration::from_secs(if queued > 0 { 60 } else { 0 }),
            ended: ended.to_vec(),
            duration: Some(Duration::from_secs(30)),
        }
    }

    fn whats(loads: &[Load]) -> Vec<(String, What)> {
        advise(loads).1.into_iter().map(|one| (one.agent, one.what)).collect()
    }

    #[test]
    fn an_agent_type_that_is_late_gets_more() {
        // 60 tasks of 30 s within 5 minutes: 6 slots, and 2 are busy.
        let late = load("fixer", 1, 2, 60, &[4, 4, 4]);
        assert_eq!(whats(std::slice::from_ref(&late)), [("fixer".into(), What::Add { count: 4 })]);
        let (_, advice) = advise(&[late]);
        assert!(advice[0].reason.contains("60 tasks wait for `fixer`"), "{}", advice[0].reason);
        // Nobody is late yet.
        let mut early = load("fixer", 1, 2, 60, &[4]);
        early.oldest = Duration::from_secs(1);
        assert_eq!(whats(&[early]), []);
        let nobody = load("gone", 0, 0, 1, &[]);
        assert_eq!(whats(&[nobody]), [("gone".into(), What::Add { count: 1 })]);
    }

    #[test]
    fn an_idle_agent_leaves_unless_it_is_the_last_or_will_be_needed() {
        let drain = What::Drain { instance: "idle-0".into() };
        assert_eq!(whats(&[load("idle", 2, 0, 0, &[0, 0])]), [("idle".into(), drain)]);
        assert_eq!(whats(&[load("last", 1, 0, 0, &[0])]), []);
        assert_eq!(whats(&[load("soon", 2, 0, 0, &[8, 8, 8])]), [], "8 a minute need 5 slots");
    }

    #[test]
    fn what_is_idle_moves_to_where_it_is_missing() {
        let loads = [load("idle", 3, 0, 0, &[0]), load("late", 1, 2, 10, &[4])];
        let to_late = What::Move { instance: "idle-0".into(), to: "late".into() };
        assert_eq!(whats(&loads), [("idle".into(), to_late)]);
    }

    #[test]
    fn an_agent_that_several_replicas_see_counts_once() {
        let instance = |name: &str, slots, busy, lent| Instance {
            name: name.to_owned(),
            slots,
            busy,
            draining: false,
            lent,
        };
        let here = Load {
            agent: "x".to_owned(),
            instances: vec![instance("ours", 4, 1, false), instance("theirs", 2, 2, true)],
            queued: 3,
            oldest: Duration::from_secs(9),
            ended: vec![1, 2],
            duration: Some(Duration::from_secs(10)),
        };
        let there = Load {
            instances: vec![
                instance("theirs", 8, 3, false),
                instance("ours", 1, 1, true),
                instance("unknown", 2, 0, true),
            ],
            queued: 4,
            oldest: Duration::from_secs(2),
            ended: vec![5, 0, 1],
            duration: Some(Duration::from_secs(40)),
            ..here.clone()
        };
        let other = Load { agent: "y".to_owned(), ..Load::default() };
        let seen = [here, there, other];
        let loads = merged(seen.clone());
        assert_eq!(loads.len(), 2);
        let load = &loads[0];
        assert_eq!(
            load.instances,
            [
                instance("ours", 4, 2, false),
                instance("theirs", 8, 5, false),
                // Its own replica is silent.
                instance("unknown", 2, 0, true),
            ]
        );
        assert_eq!((load.queued, load.oldest), (7, Duration::from_secs(9)));
        assert_eq!(load.ended, [5, 1, 3]);
        assert_eq!(load.duration, Some(Duration::from_secs(30)), "3 of 10 s, 6 of 40 s");
        assert_eq!(slots(&loads), BTreeMap::from([("x".into(), 14)]));
        let [here, there, other] = seen;
        let turned = merged([other, there, here]);
        assert_eq!((turned[0].ended.clone(), turned[0].duration), (vec![5, 1, 3], load.duration));
        assert_eq!(slots(&turned), slots(&loads));
    }

    #[test]
    fn newer_minutes_count_more() {
        let rising = smoothed(&[0, 0, 10]);
        let falling = smoothed(&[10, 0, 0]);
        assert!((rising - 3.0).abs() < 1e-9 && (falling - 4.9).abs() < 1e-9);
        assert!(smoothed(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn the_order_of_what_is_handed_in_changes_nothing() {
        let mut loads =
            vec![load("b", 2, 0, 0, &[0]), load("a", 1, 2, 90, &[1]), load("c", 2, 0, 0, &[0])];
        let one = advise(&loads);
        loads.reverse();
        assert_eq!(advise(&loads), one);
    }
}
