//! Triages as resources, and what they are decided from: `declared` gathers what agents say of
//! themselves, `learning` keeps what confirmed outcomes taught, `outcome` what was confirmed.
//!
//! The decision itself is the crate `triage`, which is pure. Nothing here knows gRPC.

pub mod declared;
pub mod learning;
pub mod outcome;
mod write;

pub use learning::Learning;
pub use write::{Written, write};

use std::collections::BTreeMap;

use ::triage::priority::System;
use ::triage::{Constraints, Issue, Triage};
use engine::Instant;
use serde::{Deserialize, Serialize};
use store::{DocumentRow, Store};

use crate::documents::Kind;

/// The status of every triage: there is but one.
pub const STATUS: i16 = 1;

/// A triage as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Who asked for it.
    pub creator: String,
    /// The issues.
    pub issues: Vec<Issue>,
    /// The system.
    pub system: System,
    /// What limited the choice.
    pub constraints: Constraints,
    /// What was decided.
    pub decided: Triage,
    /// Issues that nobody needs to take any more, as people decided.
    #[serde(default)]
    pub handled: BTreeMap<String, Handled>,
}

/// Why nobody needs to take an issue any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handled {
    /// It was mended by hand; else it is left as it is.
    pub mended: bool,
    /// Who said so.
    pub by: String,
    /// What was said to it.
    pub comment: String,
    /// When.
    pub at: Instant,
}

impl Stored {
    /// From the body of its document.
    ///
    /// # Errors
    /// When the body is not one of a triage.
    pub fn read(row: &DocumentRow) -> Result<Self, store::Error> {
        body(row)
    }
}

/// A triage of a tenant.
///
/// # Errors
/// When the store does not answer, or what it has is no triage.
pub async fn get(
    store: &dyn Store,
    tenant: &str,
    id: &str,
) -> Result<Option<(DocumentRow, Stored)>, store::Error> {
    let row = store.document(Kind::Triage.number(), id).await?;
    let Some(row) = row.filter(|row| row.tenant == tenant) else { return Ok(None) };
    let stored = Stored::read(&row)?;
    Ok(Some((row, stored)))
}

/// The chain of the audit log that is about a triage.
#[must_use]
pub fn resource(id: &str) -> String {
    format!("triage/{id}")
}

/// A document's body, read.
pub(crate) fn body<T: for<'a> Deserialize<'a>>(row: &DocumentRow) -> Result<T, store::Error> {
    serde_json::from_slice(&row.body)
        .map_err(|error| store::Error::Corrupt(format!("document `{}`: {error}", row.id)))
}
