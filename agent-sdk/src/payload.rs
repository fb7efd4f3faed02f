//! Between the contracts' messages and plain Rust values.

use std::time::Duration;

use contracts::v1::{self, payload::Data};

use crate::Failure;

/// JSON text as a payload.
pub(crate) fn json(text: String) -> v1::Payload {
    v1::Payload { data: Some(Data::Json(text)), media_type: String::new() }
}

/// The JSON text of a payload; `None` when it is unset or empty.
pub(crate) fn text(payload: Option<v1::Payload>, what: &str) -> Result<Option<String>, Failure> {
    match payload.and_then(|payload| payload.data) {
        None => Ok(None),
        Some(Data::Json(text)) if text.trim().is_empty() => Ok(None),
        Some(Data::Json(text)) => Ok(Some(text)),
        Some(Data::Bytes(bytes)) => String::from_utf8(bytes).map(Some).map_err(|_| {
            Failure::rejected(format!("{what} is bytes that are not UTF-8; JSON is expected"))
                .no_effect()
        }),
        Some(Data::Blob(_)) => Err(Failure::rejected(format!(
            "{what} is a reference to a blob; this agent takes JSON itself"
        ))
        .no_effect()),
    }
}

/// A duration for the wire; what does not fit is the longest that does.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A duration from the wire; unset and negative ones give `None`.
pub(crate) fn from_duration(duration: Option<prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| Duration::try_from(duration).ok())
}

/// How many bytes of data a payload carries.
pub(crate) fn bytes(payload: &v1::Payload) -> usize {
    match &payload.data {
        Some(Data::Json(text)) => text.len(),
        Some(Data::Bytes(bytes)) => bytes.len(),
        Some(Data::Blob(_)) | None => 0,
    }
}
