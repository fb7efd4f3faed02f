//! Requests that may be repeated: their ids, and the hash by which a repetition is told from
//! another request under the same id.

use contracts::v1::Reason;
use engine::event::RequestMark;
use engine::{ContentHash, RunId};
use sha2::{Digest as _, Sha256};
use store::{RequestRow, Store};

use super::auth::Principal;
use super::status::Refusal;

/// The longest request id.
const REQUEST_ID_CHARS_MAX: usize = 128;

/// A request's id and the hash of all else in it.
#[derive(Clone, Debug)]
pub struct Mark {
    id: String,
    body: ContentHash,
}

/// What is known of a request id.
#[derive(Clone, Debug)]
pub enum Known {
    /// Nothing: it is to be carried out.
    New,
    /// The same request was carried out; it led to this.
    Before(Box<RequestRow>),
}

impl Mark {
    /// The mark of a request; `None` when it has no id. `method` and `parts` are what it asks.
    ///
    /// # Errors
    /// When the id is too long or holds control characters.
    pub fn new(id: &str, method: &str, parts: &[&[u8]]) -> Result<Option<Self>, Refusal> {
        if id.is_empty() {
            return Ok(None);
        }
        let length = id.chars().count();
        if length > REQUEST_ID_CHARS_MAX {
            let message = format!("has {length} characters; {REQUEST_ID_CHARS_MAX} are allowed");
            return Err(Refusal::field("request_id", message));
        }
        if id.chars().any(char::is_control) {
            return Err(Refusal::field("request_id", "must not hold control characters"));
        }
        let mut digest = Sha256::new();
        for part in std::iter::once(method.as_bytes()).chain(parts.iter().copied()) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Ok(Some(Self { id: id.to_owned(), body: ContentHash(digest.finalize().into()) }))
    }

    /// What the journal notes of it.
    #[must_use]
    pub fn journal(&self) -> RequestMark {
        RequestMark { id: self.id.clone(), body: self.body.to_string() }
    }

    /// What the store notes of it.
    #[must_use]
    pub fn row(&self, who: &Principal, run: Option<RunId>, at: engine::Instant) -> RequestRow {
        RequestRow {
            tenant: who.tenant.clone(),
            request_id: self.id.clone(),
            run_id: run,
            body_hash: self.body,
            at: at.0,
            response: None,
        }
    }

    /// Whether a journal's mark is of this very request.
    ///
    /// # Errors
    /// When its id was used for another request.
    pub fn is_of(&self, mark: &RequestMark) -> Result<bool, Refusal> {
        if mark.id != self.id {
            return Ok(false);
        }
        if mark.body == self.body.to_string() { Ok(true) } else { Err(self.reused()) }
    }

    /// Whether the request was carried out before.
    ///
    /// # Errors
    /// When its id was used for another request, or the store cannot say.
    pub async fn known(&self, store: &dyn Store, who: &Principal) -> Result<Known, Refusal> {
        match store.request(&who.tenant, &self.id).await? {
            None => Ok(Known::New),
            Some(row) => self.same(row).map(|row| Known::Before(Box::new(row))),
        }
    }

    /// Notes the request in the store, for those that belong to no run.
    ///
    /// # Errors
    /// When its id was used for another request, or the store cannot note it.
    pub async fn note(
        &self,
        store: &dyn Store,
        who: &Principal,
        at: engine::Instant,
    ) -> Result<Known, Refusal> {
        match store.put_request(&self.row(who, None, at)).await? {
            None => Ok(Known::New),
            Some(row) => self.same(row).map(|row| Known::Before(Box::new(row))),
        }
    }

    /// Notes what was answered to the request, for those that can be carried out twice but are to
    /// be answered alike.
    ///
    /// # Errors
    /// As [`Mark::note`].
    pub async fn note_answer(
        &self,
        store: &dyn Store,
        who: &Principal,
        at: engine::Instant,
        answer: Vec<u8>,
    ) -> Result<Known, Refusal> {
        let row = RequestRow { response: Some(answer), ..self.row(who, None, at) };
        match store.put_request(&row).await? {
            None => Ok(Known::New),
            Some(row) => self.same(row).map(|row| Known::Before(Box::new(row))),
        }
    }

    fn same(&self, row: RequestRow) -> Result<RequestRow, Refusal> {
        if row.body_hash == self.body { Ok(row) } else { Err(self.reused()) }
    }

    fn reused(&self) -> Refusal {
        let message = format!("request id `{}` was used before with another body", self.id);
        Refusal::new(Reason::RequestIdReused, message)
            .violation("request_id", "take a new id for another request")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_body_has_another_mark_however_its_parts_are_cut() {
        let body = |parts: &[&[u8]]| Mark::new("r", "M", parts).unwrap().unwrap().body;
        assert_eq!(body(&[b"ab", b"c"]), body(&[b"ab", b"c"]));
        assert_ne!(body(&[b"ab", b"c"]), body(&[b"a", b"bc"]));
        assert_ne!(body(&[b"ab"]), body(&[b"ab", b""]));
    }

    #[test]
    fn ids_are_bounded() {
        assert!(Mark::new("", "M", &[]).unwrap().is_none());
        assert!(Mark::new(&"é".repeat(128), "M", &[]).unwrap().is_some());
        assert!(Mark::new(&"x".repeat(129), "M", &[]).is_err());
        assert!(Mark::new("a\nb", "M", &[]).is_err());
    }
}
