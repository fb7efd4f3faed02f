//! `DeadLetterService`: tasks that were given up.

use contracts::v1::dead_letter_service_server::DeadLetterService;
use contracts::v1::{self, Reason};
use engine::Command;
use serde_json::json;
use store::{Cursor, DeadLetterFilter, DeadLetterRow, Discarded};
use tonic::{Request, Response, Status};

use super::auth::Principal;
use super::request::{Known, Mark};
use super::status::Refusal;
use super::{Context, convert, page, run};
use crate::audit::{self, Entry};
use crate::limits;

/// The list that page tokens of `ListDeadLetters` are good for.
const LIST: &str = "ListDeadLetters";

/// Serves `DeadLetterService`.
#[derive(Clone, Debug)]
pub struct DeadLetterApi {
    context: Context,
}

impl DeadLetterApi {
    /// Serves what `context` has.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    async fn row(&self, who: &Principal, id: &str) -> Result<DeadLetterRow, Refusal> {
        if id.is_empty() {
            return Err(Refusal::field("dead_letter_id", "must be given"));
        }
        let row = self.context.runs.store().dead_letter(id).await?;
        row.filter(|row| row.tenant == who.tenant).ok_or_else(|| {
            let message = format!("there is no dead letter `{}`", super::status::cut(id, 200));
            Refusal::missing(Reason::DeadLetterNotFound, "dead letter", id, message)
        })
    }

    async fn list(
        &self,
        who: &Principal,
        request: v1::ListDeadLettersRequest,
    ) -> Result<v1::ListDeadLettersResponse, Refusal> {
        let size = page::size(request.page_size)?;
        let after = match page::place::<2>(LIST, &request.page_token)? {
            Some([at, id]) => Some(Cursor { at: page::part(&at)?, id }),
            None => None,
        };
        let filter =
            DeadLetterFilter { tenant: Some(who.tenant.clone()), ..DeadLetterFilter::default() };
        let limit = u32::try_from(size).unwrap_or(u32::MAX);
        let rows = self.context.runs.store().dead_letters(&filter, after, limit).await?;
        let next_page_token = match rows.last() {
            Some(last) if rows.len() == size => {
                page::token(LIST, &[&last.at.to_string(), &last.id])
            }
            _ => String::new(),
        };
        let dead_letters = rows.iter().map(|row| convert::dead_letter(row, false)).collect();
        Ok(v1::ListDeadLettersResponse { dead_letters, next_page_token })
    }

    async fn replay(
        &self,
        who: &Principal,
        request: v1::ReplayDeadLetterRequest,
    ) -> Result<v1::ReplayDeadLetterResponse, Refusal> {
        let id = &request.dead_letter_id;
        let mark = Mark::new(&request.request_id, "ReplayDeadLetter", &[id.as_bytes()])?;
        // A repetition finds the letter gone; its run remembers the request.
        let run = match self.row(who, id).await {
            Ok(row) => row.run_id.to_string(),
            Err(refusal) => match (id.split_once('/'), &mark) {
                (Some((run, _)), Some(_)) => {
                    self.repeated(run, mark.as_ref()).await?.ok_or(refusal)?
                }
                _ => return Err(refusal),
            },
        };
        let retry = |origin| Command::Retry { origin };
        let run = run::ask(&self.context, who, &run, mark.as_ref(), retry).await?;
        Ok(v1::ReplayDeadLetterResponse { run: Some(run) })
    }

    /// The run, when its journal has this very request.
    async fn repeated(&self, run: &str, mark: Option<&Mark>) -> Result<Option<String>, Refusal> {
        let (Ok(id), Some(mark)) = (convert::run_id(run, "dead_letter_id"), mark) else {
            return Ok(None);
        };
        let wanted = mark.journal();
        let mut after = 0;
        loop {
            let rows = self.context.runs.store().journal(id, after, 1_000).await?;
            let Some(last) = rows.last() else { return Ok(None) };
            after = last.seq;
            let found = rows.iter().any(|row| {
                let event = engine::Event::decode(row.kind, &row.body);
                matches!(event, Ok(engine::Event::RunRetried { origin })
                    if origin.request.as_ref() == Some(&wanted))
            });
            if found {
                return Ok(Some(run.to_owned()));
            }
        }
    }

    async fn discard(
        &self,
        who: &Principal,
        request: v1::DiscardDeadLetterRequest,
    ) -> Result<v1::DiscardDeadLetterResponse, Refusal> {
        let id = &request.dead_letter_id;
        let mark = Mark::new(&request.request_id, "DiscardDeadLetter", &[id.as_bytes()])?;
        let store = &**self.context.runs.store();
        if let Some(mark) = &mark
            && let Known::Before(_) = mark.known(store, who).await?
        {
            return Ok(v1::DiscardDeadLetterResponse {});
        }
        let row = self.row(who, id).await?;
        // Not the run's own chain, which nobody but the run writes.
        let resource = format!("dead_letter/{}", row.run_id);
        let (actor, body) = (who.subject.clone(), json!({"step": row.step}));
        let entry = Entry { resource, actor, action: "dead_letter.discard", body };
        let mut attempts = 0;
        loop {
            let now = self.context.runs.clock().now();
            let entry = audit::next(store, entry.clone(), now).await?;
            match store.delete_dead_letter(id, &[entry]).await? {
                Discarded::Done | Discarded::NotThere => break,
                // Somebody else has written to the chain.
                Discarded::AuditTaken if attempts < limits::AUDIT_ATTEMPTS => attempts += 1,
                Discarded::AuditTaken => return Err(Refusal::unavailable(audit::BUSY)),
            }
        }
        if let Some(mark) = &mark {
            mark.note(store, who, self.context.runs.clock().now()).await?;
        }
        Ok(v1::DiscardDeadLetterResponse {})
    }
}

#[tonic::async_trait]
impl DeadLetterService for DeadLetterApi {
    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        let who = Principal::of(&request);
        Ok(Response::new(self.list(&who, request.into_inner()).await?))
    }

    async fn get_dead_letter(
        &self,
        request: Request<v1::GetDeadLetterRequest>,
    ) -> Result<Response<v1::GetDeadLetterResponse>, Status> {
        let who = Principal::of(&request);
        let row = self.row(&who, &request.into_inner().dead_letter_id).await?;
        let dead_letter = Some(convert::dead_letter(&row, true));
        Ok(Response::new(v1::GetDeadLetterResponse { dead_letter }))
    }

    async fn replay_dead_letter(
        &self,
        request: Request<v1::ReplayDeadLetterRequest>,
    ) -> Result<Response<v1::ReplayDeadLetterResponse>, Status> {
        let who = Principal::of(&request);
        Ok(Response::new(self.replay(&who, request.into_inner()).await?))
    }

    async fn discard_dead_letter(
        &self,
        request: Request<v1::DiscardDeadLetterRequest>,
    ) -> Result<Response<v1::DiscardDeadLetterResponse>, Status> {
        let who = Principal::of(&request);
        Ok(Response::new(self.discard(&who, request.into_inner()).await?))
    }
}
