//! Times and durations as people read them.

use std::time::Duration;

use chrono::{DateTime, Local, Utc};
use prost_types::Timestamp;

/// The time now; the one place where this crate asks for it.
#[expect(clippy::disallowed_methods, reason = "what people read is told from the wall clock")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// A timestamp of the contracts; none where it is out of range.
pub(crate) fn time(timestamp: &Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(timestamp.seconds, u32::try_from(timestamp.nanos).ok()?)
}

/// How long ago something was, or when it will be: `3m ago`, `in 4s`; a dash where unset.
pub(crate) fn relative(timestamp: Option<&Timestamp>, now: DateTime<Utc>) -> String {
    let Some(time) = timestamp.and_then(time) else { return "-".to_owned() };
    let seconds = now.signed_duration_since(time).num_seconds();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{} ago", coarse(seconds.unsigned_abs())),
        _ => format!("in {}", coarse(seconds.unsigned_abs())),
    }
}

/// The local time with how long ago it was.
pub(crate) fn local(timestamp: Option<&Timestamp>, now: DateTime<Utc>) -> String {
    let Some(time) = timestamp.and_then(time) else { return "-".to_owned() };
    let local = time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S %Z");
    format!("{local} ({})", relative(timestamp, now))
}

/// The time of day in local time, to the millisecond.
pub(crate) fn clock(timestamp: Option<&Timestamp>) -> String {
    match timestamp.and_then(time) {
        Some(time) => time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        None => "-".to_owned(),
    }
}

/// A duration: `350ms`, `1.5s`, `2m 05s`, `1h 02m`, `3d 04h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0s".to_owned(),
        0 => format!("{}ms", duration.as_millis().max(1)),
        1..60 => format!("{:.1}s", duration.as_secs_f64().min(59.9)),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// A duration of the contracts; none where it is unset or negative.
pub(crate) fn span(duration: Option<&prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| Duration::try_from(*duration).ok())
}

/// From one time to another, or to now where the second is unset.
pub(crate) fn between(
    start: Option<&Timestamp>,
    end: Option<&Timestamp>,
    now: DateTime<Utc>,
) -> Option<Duration> {
    let start = start.and_then(time)?;
    let end = end.and_then(time).unwrap_or(now);
    Some(end.signed_duration_since(start).to_std().unwrap_or_default())
}

fn coarse(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let table = [
            (0, "0s"),
            (350, "350ms"),
            (1_500, "1.5s"),
            (59_999, "59.9s"),
            (125_000, "2m 05s"),
            (3_720_000, "1h 02m"),
            (273_600_000, "3d 04h"),
        ];
        for (millis, text) in table {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn times_are_told_from_now() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let now = DateTime::from_timestamp(100_000, 0).unwrap_or_default();
        assert_eq!(relative(at(100_000).as_ref(), now), "now");
        assert_eq!(relative(at(99_955).as_ref(), now), "45s ago");
        assert_eq!(relative(at(92_800).as_ref(), now), "2h ago");
        assert_eq!(relative(at(100_060).as_ref(), now), "in 1m");
        assert_eq!(relative(None, now), "-");
    }
}
