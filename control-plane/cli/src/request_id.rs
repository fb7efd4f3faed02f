//! Ids that make a change repeatable.

use uuid::Uuid;

/// The id given by the user, or a fresh one, so that a retry within a command changes nothing
/// twice.
#[expect(clippy::disallowed_methods, reason = "a client has no id source but this one")]
pub(crate) fn request_id(given: Option<&str>) -> String {
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}
