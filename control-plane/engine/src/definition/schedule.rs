//! When a schedule fires: cron expressions in a time zone. Pure: the time is handed in.
//!
//! The cron expression is matched against the wall clock of the zone. A local time that occurs
//! twice fires at the first; one that does not exist fires at the first that does after it.

use std::str::FromStr as _;

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::errors::CronError;

use super::nearest::nearest;
use crate::graph::Schedule;
use crate::id::Instant;

/// Characters of a cron expression; nobody writes longer ones.
const CRON_CHARS_MAX: usize = 256;
/// Local times that one search may pass over: those of two repeated hours, each second one.
const PASSED_OVER_MAX: usize = 2 * 3600 + 1;
/// The longest gap of local time: a zone that crossed the date line lost a day.
const GAP_MINUTES_MAX: i64 = 48 * 60;

/// A cron expression in a time zone, ready to be asked.
#[derive(Clone, Debug)]
pub struct Timer {
    cron: Cron,
    zone: Tz,
}

/// Why a schedule is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// The cron expression is wrong: the reason.
    Cron(String),
    /// There is no such time zone: the reason, and the nearest that there is.
    Timezone(String, Option<&'static str>),
}

impl std::fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cron(message) | Self::Timezone(message, _) => f.write_str(message),
        }
    }
}

impl std::error::Error for ScheduleError {}

impl Timer {
    /// Reads a cron expression of 5 fields (minute, hour, day of month, month, day of week) or 6
    /// (second first), and an IANA time zone.
    ///
    /// # Errors
    /// What is wrong with which of the two.
    pub fn new(cron: &str, timezone: &str) -> Result<Self, ScheduleError> {
        let zone = zone(timezone)?;
        let cron = expression(cron).map_err(ScheduleError::Cron)?;
        let timer = Self { cron, zone };
        // Any time does: the calendar repeats. Four centuries are searched.
        if timer.next(Instant(0)).is_none() {
            let message = "this cron expression never fires: there is no such date";
            return Err(ScheduleError::Cron(message.to_owned()));
        }
        Ok(timer)
    }

    /// The timer of a compiled schedule.
    ///
    /// # Errors
    /// What is wrong with it; a schedule of a compiled definition is not.
    pub fn of(schedule: &Schedule) -> Result<Self, ScheduleError> {
        Self::new(&schedule.cron, &schedule.timezone)
    }

    /// The first instant after `instant` at which the schedule fires; `None` when there is none
    /// any more.
    #[must_use]
    pub fn next(&self, instant: Instant) -> Option<Instant> {
        let after = DateTime::from_timestamp_micros(instant.0)?;
        let mut wall = after.with_timezone(&self.zone).naive_local().and_utc();
        // Later local times are never earlier instants, so the first that is after will do.
        for _ in 0..PASSED_OVER_MAX {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            let fires = self.instant_of(wall.naive_utc())?;
            if fires > after {
                return Some(Instant(fires.timestamp_micros()));
            }
        }
        None
    }

    /// The instant of a local time: the first of two, the end of the gap if there is none.
    fn instant_of(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        let found = |wall: &NaiveDateTime| match self.zone.from_local_datetime(wall) {
            LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => {
                Some(instant.with_timezone(&Utc))
            }
            LocalResult::None => None,
        };
        if let Some(instant) = found(&wall) {
            return Some(instant);
        }
        // Gaps end at whole minutes since zones have whole minutes; older ones do not matter.
        let minute = wall.and_utc().timestamp().div_euclid(60);
        (1..=GAP_MINUTES_MAX).find_map(|step| {
            let later = DateTime::from_timestamp((minute + step) * 60, 0)?;
            found(&later.naive_utc())
        })
    }
}

fn zone(name: &str) -> Result<Tz, ScheduleError> {
    Tz::from_str(name).map_err(|_| {
        let meant = nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
        let hint = super::nearest::hint(meant);
        let message = format!("there is no time zone `{}`{hint}", super::yaml::shorten(name));
        ScheduleError::Timezone(message, meant)
    })
}

fn expression(text: &str) -> Result<Cron, String> {
    if text.trim_start().starts_with('@') {
        let fields = match text.trim().to_ascii_lowercase().as_str() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => "*/5 * * * *",
        };
        return Err(format!("a cron expression has 5 or 6 fields, as `{fields}`"));
    }
    let count = text.split_whitespace().count();
    if text.chars().count() > CRON_CHARS_MAX || !matches!(count, 5 | 6) {
        return Err(format!(
            "a cron expression has 5 fields (minute, hour, day of month, month, day of week) \
             or 6 (second first), found {count}"
        ));
    }
    // A bare ASCII check: the crate slices its text by bytes.
    if let Some(strange) = text.chars().find(|c| !c.is_ascii_graphic() && *c != ' ' && *c != '\t') {
        return Err(format!("`{}` cannot stand in a cron expression", strange.escape_default()));
    }
    Cron::from_str(text).map_err(|error| {
        let why = match &error {
            CronError::InvalidPattern(why)
            | CronError::IllegalCharacters(why)
            | CronError::ComponentError(why) => why.trim_end_matches('.').to_owned(),
            other => other.to_string().trim_end_matches('.').to_owned(),
        };
        format!("`{}` is not a cron expression: {why}", super::yaml::shorten(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Instant {
        Instant(DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
    }

    /// The next firings after `from`, as UTC text.
    fn firings(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let timer = Timer::new(cron, zone).unwrap();
        let mut instant = at(from);
        let mut all = Vec::new();
        for _ in 0..count {
            instant = timer.next(instant).unwrap();
            all.push(instant.to_rfc3339());
        }
        all
    }

    #[test]
    fn five_fields_fire_at_whole_minutes_after_the_given_time() {
        assert_eq!(
            firings("*/5 * * * *", "UTC", "2026-01-01T00:00:00Z", 2),
            ["2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z"]
        );
        assert_eq!(
            firings("0 9 * * MON-FRI", "UTC", "2026-01-02T09:00:00.5Z", 1),
            ["2026-01-05T09:00:00Z"]
        );
    }

    #[test]
    fn six_fields_begin_with_the_second() {
        assert_eq!(
            firings("30 * * * * *", "UTC", "2026-01-01T00:00:29.999999Z", 2),
            ["2026-01-01T00:00:30Z", "2026-01-01T00:01:30Z"]
        );
    }

    #[test]
    fn a_local_time_that_occurs_twice_fires_at_the_first() {
        // On 2026-10-25, 02:30 occurs in Berlin at 00:30Z and at 01:30Z.
        assert_eq!(
            firings("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            firings("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"]
        );
    }

    #[test]
    fn a_local_time_that_does_not_exist_fires_at_the_next_valid_minute() {
        // On 2026-03-29, 02:00 to 03:00 do not exist in Berlin: 01:00Z is 03:00.
        assert_eq!(
            firings("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            firings("*/20 * * * *", "Europe/Berlin", "2026-03-29T00:40:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z"]
        );
    }

    #[test]
    fn a_day_that_a_zone_skipped_fires_at_its_end() {
        // Samoa had no 2011-12-30.
        assert_eq!(
            firings("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", 1),
            ["2011-12-30T10:00:00Z"]
        );
    }

    #[test]
    fn wrong_schedules_are_refused_with_the_reason() {
        let check = |cron: &str, zone: &str, part: &str| {
            let message = Timer::new(cron, zone).unwrap_err().to_string();
            assert!(message.contains(part), "{cron} {zone}: {message}");
        };
        check("* * * *", "UTC", "found 4");
        check("* * * * * * *", "UTC", "found 7");
        check("", "UTC", "found 0");
        check("61 * * * *", "UTC", "is not a cron expression");
        check("@daily", "UTC", "as `0 0 * * *`");
        check("0 0 30 2 *", "UTC", "never fires");
        check("é * * * *", "UTC", "cannot stand");
        check("* * * * *", "Europe/Berln", "did you mean `Europe/Berlin`?");
    }

    #[test]
    fn a_schedule_that_fires_on_leap_days_only_is_found() {
        assert_eq!(
            firings("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1),
            ["2104-02-29T00:00:00Z"]
        );
    }
}
