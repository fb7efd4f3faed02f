//! The one way in which triages, outcomes and what was learned are written: documents, the request
//! behind them and the audit log together or not at all.

use engine::Instant;
use serde_json::Value;
use store::{Changed, DocumentWrite, RequestRow, Store};

use crate::audit::{self, Entry};

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The documents.
    pub documents: Vec<DocumentWrite>,
    /// What the audit log is about.
    pub resource: String,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: &'static str,
    /// More about it; no secrets.
    pub body: Value,
    /// The request behind it.
    pub request: Option<RequestRow>,
}

/// Writes it.
///
/// # Errors
/// When the store does not do it.
pub async fn write(
    store: &dyn Store,
    written: Written,
    at: Instant,
) -> Result<Changed, store::Error> {
    let Written { documents, resource, actor, action, body, request } = written;
    let entry = Entry { resource, actor, action, body };
    audit::change(store, documents, &[entry], request, at).await
}
