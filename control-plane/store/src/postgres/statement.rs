//! The text of the group commit and its arguments.
//!
//! Every run is compared and swapped by itself; what hangs on a run that lost is left out by
//! `IN (...) IS TRUE`, which the planner keeps as a hashed subplan and never makes a join of.

use engine::{ContentHash, RunId};
use sqlx::encode::Encode;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Type};

use super::Db;
use crate::batch::Transition;
use crate::pack::Stored;
use crate::{AuditRow, DeadLetterRow, DocumentRow, RequestRow};

macro_rules! update {
    ($more_values:literal, $more_names:literal, $more_conditions:literal) => {
        concat!(
            "updated AS (UPDATE runs r SET status = u.status, version = u.version, \
             ended_at = u.ended_at, priority = u.priority, labels = u.labels, \
             summary = u.summary, wake_at = u.wake_at \
             FROM unnest($1::uuid[], $2::int8[], $3::uuid[], $4::int2[], $5::int8[], \
             $6::int8[], $7::int2[], $8::bytea[], $9::bytea[], $10::int8[]",
            $more_values,
            ") AS u(run_id, expected, owner, status, version, ended_at, priority, labels, \
             summary, wake_at",
            $more_names,
            ") WHERE r.run_id = u.run_id AND r.version = u.expected \
             AND r.owner IS NOT DISTINCT FROM u.owner",
            $more_conditions,
            " RETURNING r.run_id), "
        )
    };
}

macro_rules! journal {
    ($won:literal) => {
        concat!(
            "journaled AS (INSERT INTO journal (run_id, seq, at, kind, schema, body, blob) \
             SELECT * FROM unnest($11::uuid[], $12::int8[], $13::int8[], $14::int2[], \
             $15::int2[], $16::bytea[], $17::bytea[]) \
             AS e(run_id, seq, at, kind, schema, body, blob) \
             WHERE (e.run_id IN (SELECT run_id FROM ",
            $won,
            ")) IS TRUE)"
        )
    };
}

/// The runs that won, all in one row: a row for each would be much to send and to read.
macro_rules! winners {
    ($won:literal) => {
        concat!(" SELECT array_agg(run_id) FROM ", $won)
    };
}

macro_rules! insert {
    ($columns:literal, $more_names:literal, $condition:literal) => {
        concat!(
            "inserted AS (INSERT INTO runs (run_id, tenant, workflow, version_name, \
             definition_hash, status, version, owner, created_at, ended_at, parent, priority, \
             labels, summary, wake_at) \
             SELECT i.run_id, i.tenant, i.workflow, i.version_name, i.definition_hash, i.status, \
             i.version, i.owner, i.created_at, i.ended_at, i.parent, i.priority, i.labels, \
             i.summary, i.wake_at FROM unnest(",
            $columns,
            ") AS i(run_id, tenant, workflow, version_name, definition_hash, status, version, \
             owner, created_at, ended_at, parent, priority, labels, summary, wake_at",
            $more_names,
            ")",
            $condition,
            " ON CONFLICT DO NOTHING RETURNING run_id), "
        )
    };
}

/// Updates of runs that are there, and their events.
const UPDATES: &str =
    concat!("WITH ", update!("", "", ""), journal!("updated"), winners!("updated"));

/// New runs beside that: what most batches are.
const RUNS: &str = concat!(
    "WITH ",
    insert!(
        "$18::uuid[], $19::text[], $20::text[], $21::text[], $22::bytea[], $23::int2[], \
         $24::int8[], $25::uuid[], $26::int8[], $27::int8[], $28::uuid[], $29::int2[], \
         $30::bytea[], $31::bytea[], $32::int8[]",
        "",
        ""
    ),
    update!("", "", ""),
    "won AS (SELECT run_id FROM inserted UNION ALL SELECT run_id FROM updated), ",
    journal!("won"),
    winners!("won")
);

/// All that can be in a batch. A request that is new while its run loses fails the statement, by
/// a division by zero: the request must not stay.
macro_rules! everything {
    ($more:literal) => {
        concat!(
    "WITH claimed AS (INSERT INTO requests \
     (tenant, request_id, run_id, body_hash, at, response) \
     SELECT * FROM unnest($35::text[], $36::text[], $37::uuid[], $38::bytea[], $39::int8[], \
     $40::bytea[]) ON CONFLICT DO NOTHING RETURNING run_id), ",
    insert!(
        "$19::uuid[], $20::text[], $21::text[], $22::text[], $23::bytea[], $24::int2[], \
         $25::int8[], $26::uuid[], $27::int8[], $28::int8[], $29::uuid[], $30::int2[], \
         $31::bytea[], $32::bytea[], $33::int8[], $34::bool[]",
        ", requested",
        " WHERE NOT i.requested OR (i.run_id IN (SELECT run_id FROM claimed)) IS TRUE"
    ),
    update!(
        ", $18::bool[]",
        ", requested",
        " AND (NOT u.requested OR (u.run_id IN (SELECT run_id FROM claimed)) IS TRUE)"
    ),
    "won AS (SELECT run_id FROM inserted UNION ALL SELECT run_id FROM updated), ",
    journal!("won"),
    ", lettered AS (INSERT INTO dead_letters (id, tenant, run_id, workflow, step, at, body) \
     SELECT * FROM unnest($41::text[], $42::text[], $43::uuid[], $44::text[], $45::text[], \
     $46::int8[], $47::bytea[]) AS d(id, tenant, run_id, workflow, step, at, body) \
     WHERE (d.run_id IN (SELECT run_id FROM won)) IS TRUE ON CONFLICT DO NOTHING), \
     unlettered AS (DELETE FROM dead_letters d USING unnest($48::uuid[], $49::text[]) \
     AS x(run_id, id) WHERE d.id = x.id AND d.run_id = x.run_id \
     AND (x.run_id IN (SELECT run_id FROM won)) IS TRUE), \
     referred AS (INSERT INTO run_blobs (run_id, hash) \
     SELECT * FROM unnest($50::uuid[], $51::bytea[]) AS b(run_id, hash) \
     WHERE (b.run_id IN (SELECT run_id FROM won)) IS TRUE ON CONFLICT DO NOTHING)",
    $more,
    " SELECT array_agg(run_id) FROM won WHERE 1 / (CASE WHEN EXISTS \
     (SELECT 1 FROM claimed c WHERE (c.run_id IN (SELECT run_id FROM won)) IS NOT TRUE) \
     THEN 0 ELSE 1 END) = 1"
        )
    };
}

/// Everything but documents and audit.
const EVERYTHING: &str = everything!("");

/// Everything, documents and entries of the audit log too.
const AUDITED: &str = everything!(
    ", documented AS (INSERT INTO documents (kind, id, tenant, parent, status, created_at, \
     updated_at, due_at, version, body) SELECT d.kind, d.id, d.tenant, d.parent, d.status, \
     d.created_at, d.updated_at, d.due_at, d.version, d.body \
     FROM unnest($52::uuid[], $53::int2[], $54::text[], $55::text[], $56::text[], $57::int2[], \
     $58::int8[], $59::int8[], $60::int8[], $61::int8[], $62::bytea[]) \
     AS d(run_id, kind, id, tenant, parent, status, created_at, updated_at, due_at, version, \
     body) WHERE (d.run_id IN (SELECT run_id FROM won)) IS TRUE \
     ON CONFLICT (kind, id) DO UPDATE SET parent = excluded.parent, status = excluded.status, \
     updated_at = excluded.updated_at, due_at = excluded.due_at, version = excluded.version, \
     body = excluded.body WHERE documents.version < excluded.version), \
     audited AS (INSERT INTO audit (resource, number, at, actor, action, body, previous, hash) \
     SELECT a.resource, a.number, a.at, a.actor, a.action, a.body, a.previous, a.hash \
     FROM unnest($63::uuid[], $64::text[], $65::int8[], $66::int8[], $67::text[], $68::text[], \
     $69::bytea[], $70::bytea[], $71::bytea[]) \
     AS a(run_id, resource, number, at, actor, action, body, previous, hash) \
     WHERE (a.run_id IN (SELECT run_id FROM won)) IS TRUE RETURNING resource, number), \
     unsealed AS (INSERT INTO audit_unsealed (resource, number) \
     SELECT resource, number FROM audited ON CONFLICT DO NOTHING)"
);

/// The statement for `transitions`, which are sorted by run, and what goes into it.
pub(super) fn prepare(
    transitions: &[Transition<'_>],
) -> Result<(&'static str, PgArguments), BoxDynError> {
    let mut columns = Columns(PgArguments::default());
    let (inserts, updates): (Vec<_>, Vec<_>) =
        transitions.iter().partition(|transition| transition.is_insert());
    columns.updates(&updates)?;
    columns.events(transitions)?;
    let plain = |transition: &&Transition<'_>| {
        transition.request().is_none()
            && transition.commit.dead_letters.is_empty()
            && transition.commit.remove_dead_letters.is_empty()
            && transition.blobs().next().is_none()
            && !is_audited(transition)
    };
    if transitions.iter().all(|transition| plain(&transition)) {
        if inserts.is_empty() {
            return Ok((UPDATES, columns.0));
        }
        columns.inserts(&inserts)?;
        return Ok((RUNS, columns.0));
    }
    columns.add(&updates, |transition| transition.request().is_some())?;
    columns.inserts(&inserts)?;
    columns.add(&inserts, |transition| transition.request().is_some())?;
    columns.requests(transitions)?;
    columns.dead_letters(transitions)?;
    columns.blobs(transitions)?;
    if !transitions.iter().any(is_audited) {
        return Ok((EVERYTHING, columns.0));
    }
    columns.documents(transitions)?;
    columns.audit(transitions)?;
    Ok((AUDITED, columns.0))
}

fn is_audited(transition: &Transition<'_>) -> bool {
    !transition.commit.documents.is_empty() || !transition.commit.audit.is_empty()
}

/// Arguments, an array for each column.
struct Columns(PgArguments);

impl Columns {
    fn add<'a, I, T>(
        &mut self,
        items: &'a [I],
        value: impl Fn(&'a I) -> T,
    ) -> Result<(), BoxDynError>
    where
        Vec<T>: Encode<'a, Db> + Type<Db> + 'a,
    {
        let column: Vec<T> = items.iter().map(value).collect();
        self.0.add(column)
    }

    fn updates(&mut self, updates: &[&Transition<'_>]) -> Result<(), BoxDynError> {
        self.add(updates, |t| t.commit.run.0)?;
        self.add(updates, |t| t.commit.expected_version)?;
        self.add(updates, |t| t.commit.row.owner.map(|owner| owner.0))?;
        self.add(updates, |t| t.commit.row.status)?;
        self.add(updates, |t| t.commit.row.version)?;
        self.add(updates, |t| t.commit.row.ended_at)?;
        self.add(updates, |t| t.commit.row.priority)?;
        self.add(updates, |t| t.commit.row.labels.as_slice())?;
        self.add(updates, |t| t.commit.row.summary.as_slice())?;
        self.add(updates, |t| t.commit.row.wake_at)
    }

    fn events(&mut self, transitions: &[Transition<'_>]) -> Result<(), BoxDynError> {
        let rows: Vec<(RunId, &Stored<'_>)> =
            transitions.iter().flat_map(|t| t.rows.iter().map(|row| (t.commit.run, row))).collect();
        self.add(&rows, |(run, _)| run.0)?;
        self.add(&rows, |(_, row)| row.seq)?;
        self.add(&rows, |(_, row)| row.at)?;
        self.add(&rows, |(_, row)| row.kind)?;
        self.add(&rows, |(_, row)| row.schema)?;
        self.add(&rows, |(_, row)| row.inline_body())?;
        self.add(&rows, |(_, row)| row.blob.as_ref().map(|hash| hash.0.as_slice()))
    }

    fn inserts(&mut self, inserts: &[&Transition<'_>]) -> Result<(), BoxDynError> {
        self.add(inserts, |t| t.commit.run.0)?;
        self.add(inserts, |t| t.commit.row.tenant.as_str())?;
        self.add(inserts, |t| t.commit.row.workflow.as_str())?;
        self.add(inserts, |t| t.commit.row.version_name.as_str())?;
        self.add(inserts, |t| t.commit.row.definition_hash.0.as_slice())?;
        self.add(inserts, |t| t.commit.row.status)?;
        self.add(inserts, |t| t.commit.row.version)?;
        self.add(inserts, |t| t.commit.row.owner.map(|owner| owner.0))?;
        self.add(inserts, |t| t.commit.row.created_at)?;
        self.add(inserts, |t| t.commit.row.ended_at)?;
        self.add(inserts, |t| t.commit.row.parent.map(|parent| parent.0))?;
        self.add(inserts, |t| t.commit.row.priority)?;
        self.add(inserts, |t| t.commit.row.labels.as_slice())?;
        self.add(inserts, |t| t.commit.row.summary.as_slice())?;
        self.add(inserts, |t| t.commit.row.wake_at)
    }

    /// Sorted by their own key, since that is what two batches may wait for one another by.
    fn requests(&mut self, transitions: &[Transition<'_>]) -> Result<(), BoxDynError> {
        let mut requests: Vec<(RunId, &RequestRow)> = transitions
            .iter()
            .filter_map(|t| t.request().map(|request| (t.commit.run, request)))
            .collect();
        requests.sort_by_key(|(_, row)| (&row.tenant, &row.request_id));
        self.add(&requests, |(_, row)| row.tenant.as_str())?;
        self.add(&requests, |(_, row)| row.request_id.as_str())?;
        self.add(&requests, |(run, _)| run.0)?;
        self.add(&requests, |(_, row)| row.body_hash.0.as_slice())?;
        self.add(&requests, |(_, row)| row.at)?;
        self.add(&requests, |(_, row)| row.response.as_deref())
    }

    fn dead_letters(&mut self, transitions: &[Transition<'_>]) -> Result<(), BoxDynError> {
        let added: Vec<(RunId, &DeadLetterRow)> = transitions
            .iter()
            .flat_map(|t| t.commit.dead_letters.iter().map(|letter| (t.commit.run, letter)))
            .collect();
        self.add(&added, |(_, letter)| letter.id.as_str())?;
        self.add(&added, |(_, letter)| letter.tenant.as_str())?;
        self.add(&added, |(run, _)| run.0)?;
        self.add(&added, |(_, letter)| letter.workflow.as_str())?;
        self.add(&added, |(_, letter)| letter.step.as_str())?;
        self.add(&added, |(_, letter)| letter.at)?;
        self.add(&added, |(_, letter)| letter.body.as_slice())?;
        let removed: Vec<(RunId, &str)> = transitions
            .iter()
            .flat_map(|t| t.commit.remove_dead_letters.iter().map(|id| (t.commit.run, &**id)))
            .collect();
        self.add(&removed, |(run, _)| run.0)?;
        self.add(&removed, |(_, id)| *id)
    }

    fn blobs(&mut self, transitions: &[Transition<'_>]) -> Result<(), BoxDynError> {
        let blobs: Vec<(RunId, ContentHash)> =
            transitions.iter().flat_map(|t| t.blobs().map(|hash| (t.commit.run, hash))).collect();
        self.add(&blobs, |(run, _)| run.0)?;
        self.add(&blobs, |(_, hash)| hash.0.as_slice())
    }

    /// Sorted by their own keys, as all who write them do.
    fn documents(&mut self, transitions: &[Transition<'_>]) -> Result<(), BoxDynError> {
        let mut rows: Vec<(RunId, &DocumentRow)> = transitions
            .iter()
            .flat_map(|t| t.commit.documents.iter().map(|row| (t.commit.run, row)))
            .collect();
        rows.sort_by_key(|(_, row)| (row.kind, &row.id));
        self.add(&rows, |(run, _)| run.0)?;
        self.add(&rows, |(_, row)| row.kind)?;
        self.add(&rows, |(_, row)| row.id.as_str())?;
        self.add(&rows, |(_, row)| row.tenant.as_str())?;
        self.add(&rows, |(_, row)| row.parent.as_deref())?;
        self.add(&rows, |(_, row)| row.status)?;
        self.add(&rows, |(_, row)| row.created_at)?;
        self.add(&rows, |(_, row)| row.updated_at)?;
        self.add(&rows, |(_, row)| row.due_at)?;
        self.add(&rows, |(_, row)| row.version)?;
        self.add(&rows, |(_, row)| row.body.as_slice())
    }

    fn audit(&mut self, transitions: &[Transition<'_>]) -> Result<(), BoxDynError> {
        let mut rows: Vec<(RunId, &AuditRow)> = transitions
            .iter()
            .flat_map(|t| t.commit.audit.iter().map(|row| (t.commit.run, row)))
            .collect();
        rows.sort_by_key(|(_, row)| (&row.resource, row.number));
        self.add(&rows, |(run, _)| run.0)?;
        self.add(&rows, |(_, row)| row.resource.as_str())?;
        self.add(&rows, |(_, row)| row.number)?;
        self.add(&rows, |(_, row)| row.at)?;
        self.add(&rows, |(_, row)| row.actor.as_str())?;
        self.add(&rows, |(_, row)| row.action.as_str())?;
        self.add(&rows, |(_, row)| row.body.as_slice())?;
        self.add(&rows, |(_, row)| row.previous.0.as_slice())?;
        self.add(&rows, |(_, row)| row.hash.0.as_slice())
    }
}
