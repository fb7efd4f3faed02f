//! What people do about a question before they decide: who has taken it up, comments; and how often
//! people were told of it. A document beside the question's own.

use engine::Instant;
use serde::{Deserialize, Serialize};
use store::{DocumentRow, DocumentWrite, Store};

use crate::documents::Kind;
use crate::limits;

/// The status of every such document: there is but one.
const STATUS: i16 = 1;

/// What somebody said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// Who.
    pub author: String,
    /// When.
    pub at: Instant,
    /// What.
    pub text: String,
}

/// What people do about a question. Fields are added with defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handling {
    /// Who has taken it up; empty: nobody.
    pub assignee: String,
    /// Since when.
    pub claimed_at: Option<Instant>,
    /// What was said, the oldest first.
    pub comments: Vec<Comment>,
    /// How often people were told of it.
    pub reminders: u32,
}

impl Handling {
    /// From the body of its document.
    ///
    /// # Errors
    /// When the body is not one of a handling.
    pub fn read(row: &DocumentRow) -> Result<Self, store::Error> {
        crate::triages::body(row)
    }

    /// What is known of a question's handling, with its version; 0: nothing was done yet.
    ///
    /// # Errors
    /// When the store does not answer, or what it has is no handling.
    pub async fn of(store: &dyn Store, id: &str) -> Result<(Self, i64), store::Error> {
        match store.document(Kind::EscalationHandling.number(), id).await? {
            Some(row) => Ok((Self::read(&row)?, row.version)),
            None => Ok((Self::default(), 0)),
        }
    }

    /// Takes the question up, or leaves it.
    pub fn claim(&mut self, assignee: String, at: Instant) {
        self.claimed_at = (!assignee.is_empty()).then_some(at);
        self.assignee = assignee;
    }

    /// Adds a comment.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub fn comment(&mut self, author: String, text: String, at: Instant) -> Result<(), usize> {
        if self.comments.len() >= limits::ESCALATION_COMMENTS_MAX {
            return Err(limits::ESCALATION_COMMENTS_MAX);
        }
        self.comments.push(Comment { author, at, text });
        Ok(())
    }

    /// The write of this behind what `version` says, for the question of `question`.
    ///
    /// # Errors
    /// Never, as far as bodies are JSON.
    pub fn write(
        &self,
        question: &DocumentRow,
        version: i64,
        now: Instant,
    ) -> Result<DocumentWrite, serde_json::Error> {
        let row = DocumentRow {
            kind: Kind::EscalationHandling.number(),
            id: question.id.clone(),
            tenant: question.tenant.clone(),
            parent: question.parent.clone(),
            status: STATUS,
            created_at: now.0,
            updated_at: now.0,
            due_at: None,
            version: version + 1,
            body: serde_json::to_vec(self)?,
        };
        Ok(DocumentWrite { row, expected_version: version })
    }
}
