//! Confirmed outcomes: which agent was right for an issue.

use ::triage::Example;
use engine::ContentHash;
use serde::{Deserialize, Serialize};
use store::{Cursor, DocumentFilter, DocumentRow, Store};

use crate::documents::Kind;
use crate::limits;

const OUTCOMES_READ_AT_ONCE: u32 = 1_000;

/// What was confirmed about one issue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The issue's text and the agent type that was right.
    pub example: Example,
    /// The agent type to which a triage gave it first; none where no triage did.
    pub assigned: Option<String>,
    /// For what kind of issue it was taken.
    pub category: String,
    /// Whether the agent that was right mended it.
    pub mended: bool,
    /// Somebody said only who takes it: how that went is not known, and not in `mended`.
    #[serde(default)]
    pub placed_only: bool,
    /// How long that took.
    pub duration_ms: Option<u64>,
    /// When it was confirmed, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who said so.
    pub by: String,
}

impl Outcome {
    /// Its document's id: one for an issue of a triage, one for a text that no triage has.
    #[must_use]
    pub fn id(&self, tenant: &str, triage: &str) -> String {
        let example = &self.example;
        if !triage.is_empty() {
            return id_of(tenant, triage, &example.id);
        }
        hash([tenant, &example.title, &example.description, &example.component])
    }
}

/// The id of the outcome of an issue of a triage.
#[must_use]
pub fn id_of(tenant: &str, triage: &str, issue: &str) -> String {
    hash([tenant, triage, issue, ""])
}

fn hash(parts: [&str; 4]) -> String {
    let mut text = String::new();
    for part in parts {
        text.push_str(&format!("{}:{part}", part.len()));
    }
    ContentHash::of(text.as_bytes()).to_string()
}

/// The newest outcomes of a tenant, the oldest first, each with its row.
///
/// # Errors
/// When the store does not answer, or has what is no outcome.
pub async fn read(
    store: &dyn Store,
    tenant: &str,
) -> Result<Vec<(DocumentRow, Outcome)>, store::Error> {
    let filter = DocumentFilter {
        kind: Kind::Outcome.number(),
        tenant: Some(tenant.to_owned()),
        ..DocumentFilter::default()
    };
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.documents(&filter, after, false, OUTCOMES_READ_AT_ONCE).await?;
        let is_last = page.len() < OUTCOMES_READ_AT_ONCE as usize;
        after = page.last().map(|last| Cursor { at: last.created_at, id: last.id.clone() });
        for mut row in page {
            let outcome = super::body(&row)?;
            row.body = Vec::new();
            all.push((row, outcome));
        }
        if is_last || all.len() >= limits::OUTCOMES_LEARNED_MAX {
            break;
        }
    }
    all.truncate(limits::OUTCOMES_LEARNED_MAX);
    all.reverse();
    Ok(all)
}
