//! Who is calling. One layer gives every request its principal; until there is authentication it
//! is the same for all.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use engine::event::{Origin, RequestMark};

use crate::runs::TENANT_DEFAULT;

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Whose things the caller sees and changes.
    pub tenant: String,
    /// Who it is.
    pub subject: String,
}

impl Default for Principal {
    fn default() -> Self {
        Self { tenant: TENANT_DEFAULT.to_owned(), subject: "anonymous".to_owned() }
    }
}

impl Principal {
    /// The caller of a request.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// What the journal says of who asked.
    #[must_use]
    pub fn origin(&self, request: Option<RequestMark>) -> Origin {
        Origin { actor: self.subject.clone(), request }
    }
}

/// The layer.
pub async fn principal(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Principal::default());
    next.run(request).await
}
