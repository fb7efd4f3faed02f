//! `AuditService`: the audit log, read and verified.

use contracts::v1::audit_service_server::AuditService;
use contracts::v1::{self, Reason};
use engine::Instant;
use store::{AuditCursor, AuditFilter, AuditRow};
use tonic::{Request, Response, Status};

use super::status::Refusal;
use super::{Context, convert, page};
use crate::audit::verify;
use crate::limits;

/// What page tokens are good for.
const BY_TIME: &str = "ListAuditEntries time";
const BY_NUMBER: &str = "ListAuditEntries number";
const CHAINS: &str = "ListAuditChains";
const VERIFY: &str = "VerifyAudit";

/// Serves `AuditService`.
#[derive(Clone, Debug)]
pub struct AuditApi {
    context: Context,
}

impl AuditApi {
    /// Serves what `context` has.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    async fn entries(
        &self,
        request: v1::ListAuditEntriesRequest,
    ) -> Result<v1::ListAuditEntriesResponse, Refusal> {
        let filter = filter(&request.filter)?;
        let by_number = by_number(&request.order_by)?;
        let size = page::size(request.page_size)?;
        let limit = u32::try_from(size).unwrap_or(u32::MAX);
        let (scope, store) = (request.filter.trim(), self.context.runs.store());
        let rows = if by_number {
            let scope = format!("{BY_NUMBER} {scope}");
            let resource = chain_of(&filter)?;
            let after = match page::place::<1>(&scope, &request.page_token)? {
                Some([number]) => page::part(&number)?,
                None => 0,
            };
            store.audit_chain(resource, after, limit).await?
        } else {
            let scope = format!("{BY_TIME} {scope}");
            let after = match page::place::<3>(&scope, &request.page_token)? {
                Some([at, resource, number]) => {
                    let (at, number) = (page::part(&at)?, page::part(&number)?);
                    Some(AuditCursor { at, resource, number })
                }
                None => None,
            };
            store.audit_entries(&filter, after, limit).await?
        };
        let next_page_token = match rows.last() {
            Some(last) if rows.len() == size && by_number => by_number_token(last, scope),
            Some(last) if rows.len() == size => by_time_token(last, scope),
            _ => String::new(),
        };
        let entries = rows.iter().map(shown).collect::<Result<_, _>>()?;
        Ok(v1::ListAuditEntriesResponse { entries, next_page_token })
    }

    async fn chains(
        &self,
        request: v1::ListAuditChainsRequest,
    ) -> Result<v1::ListAuditChainsResponse, Refusal> {
        let size = page::size(request.page_size)?;
        let after = page::place::<1>(CHAINS, &request.page_token)?;
        let after = after.as_ref().map(|[resource]| resource.as_str());
        let limit = u32::try_from(size).unwrap_or(u32::MAX);
        let heads = self.context.runs.store().audit_heads(after, limit).await?;
        let next_page_token = match heads.last() {
            Some(last) if heads.len() == size => page::token(CHAINS, &[&last.resource]),
            _ => String::new(),
        };
        let chain = |head: store::AuditHead| v1::AuditChain {
            resource: head.resource,
            number: head.number,
            hash: head.hash.to_string(),
        };
        let chains = heads.into_iter().map(chain).collect();
        Ok(v1::ListAuditChainsResponse { chains, next_page_token })
    }

    async fn verify(
        &self,
        request: v1::VerifyAuditRequest,
    ) -> Result<v1::VerifyAuditResponse, Refusal> {
        let resource = Some(request.resource.as_str()).filter(|resource| !resource.is_empty());
        let store = self.context.runs.store();
        let scope = format!("{VERIFY} {}", request.resource);
        let from = match page::place::<3>(&scope, &request.page_token)? {
            Some([resource, number, hash]) => {
                verify::Place { resource, number: page::part(&number)?, hash: page::part(&hash)? }
            }
            None => verify::Place::default(),
        };
        let steps = limits::AUDIT_STEPS_VERIFIED;
        let (verified, next) = verify::verify_some(&**store, resource, from, steps).await?;
        let next_page_token = next.map_or_else(String::new, |next| {
            let (number, hash) = (next.number.to_string(), next.hash.to_string());
            page::token(&scope, &[&next.resource, &number, &hash])
        });
        let broken = verified.broken.map(|broken| v1::AuditBreak {
            resource: broken.resource,
            number: broken.number,
            problem: broken.problem,
        });
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Ok(v1::VerifyAuditResponse {
            chain_count: count(verified.chains),
            entry_count: count(verified.entries),
            seal_count: count(verified.seals),
            broken,
            next_page_token,
        })
    }
}

fn by_number_token(last: &AuditRow, filter: &str) -> String {
    page::token(&format!("{BY_NUMBER} {filter}"), &[&last.number.to_string()])
}

fn by_time_token(last: &AuditRow, filter: &str) -> String {
    let place = [&last.at.to_string(), &last.resource, &last.number.to_string()];
    page::token(&format!("{BY_TIME} {filter}"), &place.map(String::as_str))
}

/// A chain in order is one chain, and all of it.
fn chain_of(filter: &AuditFilter) -> Result<&str, Refusal> {
    let alone = filter.actor.is_none() && filter.action.is_none();
    filter.resource.as_deref().filter(|_| alone).ok_or_else(|| {
        let message = "order_by: `number` needs a filter `resource=…` and no other term";
        Refusal::new(Reason::InvalidFilter, message).violation("order_by", message)
    })
}

/// An entry as clients see it.
fn shown(row: &AuditRow) -> Result<v1::AuditEntry, Refusal> {
    let body = String::from_utf8(row.body.clone());
    let body = body.map_err(|_| Refusal::internal(&"an audit entry is no text"))?;
    Ok(v1::AuditEntry {
        resource: row.resource.clone(),
        number: row.number,
        time: Some(convert::timestamp(Instant(row.at))),
        actor: row.actor.clone(),
        action: row.action.clone(),
        body: Some(convert::payload(body)),
        previous_hash: row.previous.to_string(),
        hash: row.hash.to_string(),
    })
}

fn by_number(order_by: &str) -> Result<bool, Refusal> {
    match order_by.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] | ["time", "desc"] => Ok(false),
        ["number"] | ["number", "asc"] => Ok(true),
        _ => {
            let order = super::status::cut(order_by, 100);
            let message =
                format!("order_by: `{order}` is not known; there are `time desc` and `number`");
            Err(Refusal::new(Reason::InvalidFilter, message.clone()).violation("order_by", message))
        }
    }
}

fn filter(text: &str) -> Result<AuditFilter, Refusal> {
    let mut filter = AuditFilter::default();
    for (field, value) in page::terms(text)? {
        match field {
            "resource" => filter.resource = Some(value.to_owned()),
            "actor" => filter.actor = Some(value.to_owned()),
            "action" => filter.action = Some(value.to_owned()),
            other => return Err(page::no_field(other, "resource, actor, action")),
        }
    }
    Ok(filter)
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn list_audit_entries(
        &self,
        request: Request<v1::ListAuditEntriesRequest>,
    ) -> Result<Response<v1::ListAuditEntriesResponse>, Status> {
        Ok(Response::new(self.entries(request.into_inner()).await?))
    }

    async fn list_audit_chains(
        &self,
        request: Request<v1::ListAuditChainsRequest>,
    ) -> Result<Response<v1::ListAuditChainsResponse>, Status> {
        Ok(Response::new(self.chains(request.into_inner()).await?))
    }

    async fn verify_audit(
        &self,
        request: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        Ok(Response::new(self.verify(request.into_inner()).await?))
    }
}
