//! What SQLite and PostgreSQL say in the same words. This folder is compiled once for each: the
//! parent module says which database it is (`Db`, `Connection`, `Row`) and how to get at it.
//! Nothing here may be peculiar to one of them.

mod audit;
pub(super) mod backup;
mod blob;
mod dead_letter;
mod document;
mod key;
mod ownership;
mod replica;
mod request;
mod retention;
mod run;
mod schedule;
pub(super) mod schema;
mod store;
mod workflow;

use engine::{ContentHash, RunId};
use sqlx::Row as _;

pub(super) use blob::put as put_blob;

use super::{
    BEAT, BEGIN, Connection, Database, Db, FACTS, HOLD_JOURNAL, JOURNAL_BY_ROW, KIND,
    LOCK_WORKFLOWS, Row, SKIP_LOCKED, SNAPSHOT, prepare_journal, push_among, push_among_texts,
    settle_insert, settle_restored, tend_journal,
};
use crate::OwnerId;
use crate::limits::PAGE_ROWS_MAX;

/// The limit of a page as the databases take it.
fn page(limit: u32) -> i64 {
    i64::from(limit.min(PAGE_ROWS_MAX))
}

/// A count of removals as the databases take it.
fn bounded(limit: u32) -> i64 {
    i64::from(limit)
}

fn run_id(row: &Row, column: usize) -> sqlx::Result<RunId> {
    row.try_get(column).map(RunId)
}

pub(super) fn optional_run_id(row: &Row, column: usize) -> sqlx::Result<Option<RunId>> {
    Ok(row.try_get::<Option<_>, _>(column)?.map(RunId))
}

fn optional_owner(row: &Row, column: usize) -> sqlx::Result<Option<OwnerId>> {
    Ok(row.try_get::<Option<_>, _>(column)?.map(OwnerId))
}

pub(super) fn hash(row: &Row, column: usize) -> sqlx::Result<ContentHash> {
    let bytes: Vec<u8> = row.try_get(column)?;
    let found = bytes.len();
    let wrong = |_| sqlx::Error::Decode(format!("a hash has 32 bytes, found {found}").into());
    bytes.try_into().map(ContentHash).map_err(wrong)
}
