//! What stands around every request: its deadline, a net for panics, the words for messages that
//! are too large, and the refusal of new ones while the server drains.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::limits;
use crate::service::status::Refusal;

/// Gives a request up when the time that its client gives it is over.
pub(super) async fn deadline(request: Request, next: Next) -> Response {
    let timeout = request.headers().get("grpc-timeout").and_then(|value| value.to_str().ok());
    let Some(timeout) = timeout.and_then(parse) else { return next.run(request).await };
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the time that the client gave is over").into_http(),
    }
}

/// Refuses what clients and agents begin while the server drains: another replica, or the next
/// start, does it. Other replicas are still answered, for what is under way needs them.
pub(super) async fn draining(
    State(draining): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    let refused = draining.is_cancelled()
        && super::SERVICES.iter().any(|known| !known.is_empty() && *known == service);
    if !refused {
        return next.run(request).await;
    }
    let message = "this server drains; ask another one, or this one again shortly";
    Status::from(Refusal::unavailable(message)).into_http()
}

/// Answers a request whose handler panicked; the connection and its other requests live on.
pub(super) async fn panics(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let what = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a handler panicked".to_owned());
            Status::from(Refusal::internal(&what)).into_http::<Body>()
        }
    }
}

/// Says of a message that is too large what is allowed, in the form of all refusals; the codec
/// refuses it before any handler sees it.
pub(super) async fn too_large(response: Response) -> Response {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    // 11 is OUT_OF_RANGE, and the text is the codec's, percent-encoded.
    let refused = header("grpc-status") == Some("11")
        && header("grpc-message").is_some_and(|text| text.contains("length%20too%20large"));
    if !refused {
        return response;
    }
    let max = limits::MESSAGE_BYTES_MAX;
    let message = format!("the message is too large; {max} bytes are allowed");
    Status::from(Refusal::limit("message", message)).into_http()
}

/// `grpc-timeout`: up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_and_nonsense_is_none() {
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "m", "1", "1x", "-1S", "123456789S", "1é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
