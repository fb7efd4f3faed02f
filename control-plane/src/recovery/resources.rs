//! Advice about agents: which to add, to drain or to move to other work, from what waits, how busy
//! they are and what is to be expected. Pure; nothing is done by it.
//!
//! What is to be expected is the rate of the last minutes, smoothed exponentially: a newer minute
//! counts more, and no single one much. The slots that a type needs are those for the expected
//! work at four fifths of their time, and those that clear what waits within a few minutes.

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
