//! The texts of the group commit. They depend on what kinds of rows are in the batch and on nothing
//! else, so that few are ever made and each is prepared once.

use std::sync::LazyLock;

use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;

use super::packed::{Heap, Kind, Layout, Records};
use crate::batch::Transition;

/// What a transition is decided by.
const CHECKS: Layout = Layout {
    parameter: "$12",
    columns: &[
        ("run_id", Kind::Id),
        ("owner", Kind::OptionalId),
        ("expected", Kind::Integer),
        ("place", Kind::Integer),
    ],
};

/// Which requests are known already.
const CLAIMS: Layout = Layout {
    parameter: "$13",
    columns: &[("tenant", Kind::Text), ("request_id", Kind::Text), ("place", Kind::Integer)],
};

const INSERTS: Layout = Layout {
    parameter: "$2",
    columns: &[
        ("run_id", Kind::Id),
        ("tenant", Kind::Text),
        ("workflow", Kind::Text),
        ("version_name", Kind::Text),
        ("definition_hash", Kind::Hash),
        ("status", Kind::Integer),
        ("version", Kind::Integer),
        ("owner", Kind::OptionalId),
        ("created_at", Kind::Integer),
        ("ended_at", Kind::OptionalInteger),
        ("parent", Kind::OptionalId),
        ("priority", Kind::Integer),
        ("labels", Kind::Bytes),
        ("summary", Kind::Bytes),
        ("wake_at", Kind::OptionalInteger),
    ],
};

const UPDATES: Layout = Layout {
    parameter: "$3",
    columns: &[
        ("run_id", Kind::Id),
        ("status", Kind::Integer),
        ("version", Kind::Integer),
        ("ended_at", Kind::OptionalInteger),
        ("priority", Kind::Integer),
        ("labels", Kind::Bytes),
        ("summary", Kind::Bytes),
        ("wake_at", Kind::OptionalInteger),
    ],
};

const JOURNAL: Layout = Layout {
    parameter: "$4",
    columns: &[
        ("run_id", Kind::Id),
        ("seq", Kind::Integer),
        ("at", Kind::Integer),
        ("kind", Kind::Integer),
        ("schema", Kind::Integer),
        ("body", Kind::OptionalBytes),
        ("blob", Kind::OptionalBytes),
    ],
};

const REQUESTS: Layout = Layout {
    parameter: "$5",
    columns: &[
        ("tenant", Kind::Text),
        ("request_id", Kind::Text),
        ("run_id", Kind::Id),
        ("body_hash", Kind::Hash),
        ("at", Kind::Integer),
        ("response", Kind::OptionalBytes),
    ],
};

const REMOVED_LETTERS: Layout =
    Layout { parameter: "$6", columns: &[("id", Kind::Text), ("run_id", Kind::Id)] };

const DEAD_LETTERS: Layout = Layout {
    parameter: "$7",
    columns: &[
        ("id", Kind::Text),
        ("tenant", Kind::Text),
        ("run_id", Kind::Id),
        ("workflow", Kind::Text),
        ("step", Kind::Text),
        ("at", Kind::Integer),
        ("body", Kind::Bytes),
    ],
};

const RUN_BLOBS: Layout =
    Layout { parameter: "$8", columns: &[("run_id", Kind::Id), ("hash", Kind::Hash)] };

const DOCUMENTS: Layout = Layout {
    parameter: "$9",
    columns: &[
        ("kind", Kind::Integer),
        ("id", Kind::Text),
        ("tenant", Kind::Text),
        ("parent", Kind::OptionalText),
        ("status", Kind::Integer),
        ("created_at", Kind::Integer),
        ("updated_at", Kind::Integer),
        ("due_at", Kind::OptionalInteger),
        ("version", Kind::Integer),
        ("body", Kind::Bytes),
    ],
};

const AUDIT: Layout = Layout {
    parameter: "$10",
    columns: &[
        ("resource", Kind::Text),
        ("number", Kind::Integer),
        ("at", Kind::Integer),
        ("actor", Kind::Text),
        ("action", Kind::Text),
        ("body", Kind::Bytes),
        ("previous", Kind::Hash),
        ("hash", Kind::Hash),
    ],
};

/// Runs whose children end.
const PARENTS: Layout =
    Layout { parameter: "$11", columns: &[("run_id", Kind::Id), ("wake_at", Kind::Integer)] };

/// Those that lose by version or owner, with the expression for each.
fn losers_select(what: &str) -> String {
    format!(
        "{} SELECT {what} FROM (SELECT {} FROM n) AS c \
         LEFT JOIN runs AS r ON r.run_id = c.run_id WHERE CASE c.expected \
         WHEN 0 THEN r.run_id IS NOT NULL \
         ELSE r.version IS NOT c.expected OR r.owner IS NOT c.owner END",
        CHECKS.counter(),
        CHECKS.values()
    )
}

/// Begins the transaction and gives the places of those that lose by version or owner.
static LOSERS: LazyLock<String> =
    LazyLock::new(|| format!("BEGIN IMMEDIATE; {}", losers_select("c.place")));

/// Begins the transaction, and fails when any loses: no number is that expression.
static NO_LOSERS: LazyLock<String> = LazyLock::new(|| {
    format!("BEGIN IMMEDIATE; {}; ", losers_select("abs(c.place * 0 - 9223372036854775807 - 1)"))
});

/// Follows the former: gives the places of those whose requests are known, and what to.
static KNOWN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "; {} SELECT c.place, q.run_id, q.body_hash FROM (SELECT {} FROM n) AS c \
         JOIN requests AS q ON q.tenant = c.tenant AND q.request_id = c.request_id",
        CLAIMS.counter(),
        CLAIMS.values()
    )
});

/// The parts of the write, in the order of their parameters from `$2`.
static PARTS: LazyLock<[(Layout, String); 10]> = LazyLock::new(|| {
    let insert = |table: &str, layout: Layout, otherwise: &str| {
        let text = format!(
            "{}INSERT INTO {table} ({}) SELECT {} FROM n{otherwise}; ",
            layout.counter(),
            layout.names(),
            layout.values()
        );
        (layout, text)
    };
    let update = format!(
        "{}UPDATE runs SET status = u.status, version = u.version, ended_at = u.ended_at, \
         priority = u.priority, labels = u.labels, summary = u.summary, wake_at = u.wake_at \
         FROM (SELECT {} FROM n) AS u WHERE runs.run_id = u.run_id; ",
        UPDATES.counter(),
        UPDATES.values()
    );
    let remove = format!(
        "{}DELETE FROM dead_letters WHERE (id, run_id) IN (SELECT {} FROM n); ",
        REMOVED_LETTERS.counter(),
        REMOVED_LETTERS.values()
    );
    // `WHERE true` keeps the parser from taking ON for a join's.
    let once = " WHERE true ON CONFLICT DO NOTHING";
    [
        insert("runs", INSERTS, ""),
        (UPDATES, update),
        insert("journal", JOURNAL, ""),
        insert("requests", REQUESTS, ""),
        (REMOVED_LETTERS, remove),
        insert("dead_letters", DEAD_LETTERS, once),
        insert("run_blobs", RUN_BLOBS, once),
        insert("documents", DOCUMENTS, NEWER),
        (AUDIT, audit()),
        (PARENTS, wake_parents()),
    ]
});

/// A document that is there is replaced by a newer one.
const NEWER: &str = " WHERE true ON CONFLICT (kind, id) DO UPDATE SET parent = excluded.parent, \
     status = excluded.status, updated_at = excluded.updated_at, due_at = excluded.due_at, \
     version = excluded.version, body = excluded.body WHERE documents.version < excluded.version";

/// Has parked runs wake.
fn wake_parents() -> String {
    format!(
        "{}UPDATE parked SET wake_at = min(coalesce(parked.wake_at, u.wake_at), u.wake_at) \
         FROM (SELECT u.run_id, min(u.wake_at) AS wake_at FROM (SELECT {} FROM n) AS u \
         GROUP BY u.run_id) AS u WHERE parked.run_id = u.run_id; ",
        PARENTS.counter(),
        PARENTS.values()
    )
}

/// Adds to the audit log, and notes what no seal covers.
fn audit() -> String {
    let (counter, names, values) = (AUDIT.counter(), AUDIT.names(), AUDIT.values());
    format!(
        "{counter}INSERT INTO audit ({names}) SELECT {values} FROM n; \
         {counter}INSERT INTO audit_unsealed (resource, number) SELECT a.resource, a.number \
         FROM (SELECT {values} FROM n) AS a WHERE true ON CONFLICT DO NOTHING; "
    )
}

/// The statement that begins, and finds losers: rows of a place, and rows of a place with the run
/// and the body's hash of a known request.
pub(super) fn losers(
    transitions: &[Transition<'_>],
) -> Result<(String, SqliteArguments), BoxDynError> {
    let (checks, mut claims) = (checks(transitions), Records::default());
    let mut heap = Heap::default();
    for transition in transitions {
        let place = transition.place as i64;
        if let Some(request) = transition.request() {
            claims
                .text(&mut heap, &request.tenant)
                .text(&mut heap, &request.request_id)
                .integer(place);
        }
    }
    let mut text = LOSERS.clone();
    if !claims.is_empty() {
        text.push_str(&KNOWN);
    }
    let mut arguments = SqliteArguments::default();
    arguments.add(heap.into_bytes())?;
    for _ in PARTS.iter() {
        arguments.add(Vec::<u8>::new())?;
    }
    arguments.add(checks.into_bytes(&CHECKS))?;
    arguments.add(claims.into_bytes(&CLAIMS))?;
    Ok((text, arguments))
}

/// What the version and the owner of each are compared with.
fn checks(transitions: &[Transition<'_>]) -> Records {
    let mut checks = Records::default();
    for transition in transitions {
        checks
            .id(transition.commit.run.0)
            .optional_id(transition.commit.row.owner.map(|owner| owner.0))
            .integer(transition.commit.expected_version)
            .integer(transition.place as i64);
    }
    checks
}

/// The statement that does all of it, if no transition loses; it fails, within its transaction,
/// when one does. For batches without requests and blobs.
pub(super) fn whole(
    transitions: &[Transition<'_>],
) -> Result<(String, SqliteArguments), BoxDynError> {
    let (mut text, mut arguments) = (NO_LOSERS.clone(), SqliteArguments::default());
    write_into(transitions, &mut text, &mut arguments)?;
    arguments.add(checks(transitions).into_bytes(&CHECKS))?;
    Ok((text, arguments))
}

/// The statement that writes `transitions`, all of which win, and commits.
pub(super) fn write(
    transitions: &[Transition<'_>],
) -> Result<(String, SqliteArguments), BoxDynError> {
    let (mut text, mut arguments) = (String::new(), SqliteArguments::default());
    write_into(transitions, &mut text, &mut arguments)?;
    Ok((text, arguments))
}

fn write_into(
    transitions: &[Transition<'_>],
    text: &mut String,
    arguments: &mut SqliteArguments,
) -> Result<(), BoxDynError> {
    let mut parts = Parts::default();
    for transition in transitions {
        parts.push(transition);
    }
    let records = [
        parts.inserts,
        parts.updates,
        parts.journal,
        parts.requests,
        parts.removed_letters,
        parts.dead_letters,
        parts.run_blobs,
        parts.documents,
        parts.audit,
        parts.parents,
    ];
    arguments.add(parts.heap.into_bytes())?;
    for (records, (layout, part)) in records.into_iter().zip(PARTS.iter()) {
        if !records.is_empty() {
            text.push_str(part);
        }
        arguments.add(records.into_bytes(layout))?;
    }
    text.push_str("COMMIT");
    Ok(())
}

#[derive(Default)]
struct Parts {
    heap: Heap,
    inserts: Records,
    updates: Records,
    journal: Records,
    requests: Records,
    removed_letters: Records,
    dead_letters: Records,
    run_blobs: Records,
    documents: Records,
    audit: Records,
    parents: Records,
}

impl Parts {
    fn push(&mut self, transition: &Transition<'_>) {
        if transition.is_insert() {
            self.push_insert(transition);
        } else {
            self.push_update(transition);
        }
        let run = transition.commit.run.0;
        for row in &transition.rows {
            self.journal
                .id(run)
                .integer(row.seq)
                .integer(row.at)
                .integer(row.kind.into())
                .integer(row.schema.into())
                .optional_bytes(&mut self.heap, row.inline_body())
                .optional_bytes(&mut self.heap, row.blob.as_ref().map(|hash| &hash.0[..]));
        }
        self.push_others(transition);
        self.push_documents(transition);
        if let Some((parent, at)) = transition.parent_to_wake() {
            self.parents.id(parent.0).integer(at);
        }
        for hash in transition.blobs() {
            self.run_blobs.id(run).hash(hash);
        }
    }

    fn push_insert(&mut self, transition: &Transition<'_>) {
        let (row, heap) = (&transition.commit.row, &mut self.heap);
        self.inserts
            .id(row.run_id.0)
            .text(heap, &row.tenant)
            .text(heap, &row.workflow)
            .text(heap, &row.version_name)
            .hash(row.definition_hash)
            .integer(row.status.into())
            .integer(row.version)
            .optional_id(row.owner.map(|owner| owner.0))
            .integer(row.created_at)
            .optional_integer(row.ended_at)
            .optional_id(row.parent.map(|parent| parent.0))
            .integer(row.priority.into())
            .bytes(heap, &row.labels)
            .bytes(heap, &row.summary)
            .optional_integer(row.wake_at);
    }

    fn push_update(&mut self, transition: &Transition<'_>) {
        let (row, heap) = (&transition.commit.row, &mut self.heap);
        self.updates
            .id(row.run_id.0)
            .integer(row.status.into())
            .integer(row.version)
            .optional_integer(row.ended_at)
            .integer(row.priority.into())
            .bytes(heap, &row.labels)
            .bytes(heap, &row.summary)
            .optional_integer(row.wake_at);
    }

    fn push_others(&mut self, transition: &Transition<'_>) {
        let (run, heap) = (transition.commit.run.0, &mut self.heap);
        if let Some(request) = transition.request() {
            self.requests
                .text(heap, &request.tenant)
                .text(heap, &request.request_id)
                .id(run)
                .hash(request.body_hash)
                .integer(request.at)
                .optional_bytes(heap, request.response.as_deref());
        }
        for id in &transition.commit.remove_dead_letters {
            self.removed_letters.text(heap, id).id(run);
        }
        for letter in &transition.commit.dead_letters {
            self.dead_letters
                .text(heap, &letter.id)
                .text(heap, &letter.tenant)
                .id(run)
                .text(heap, &letter.workflow)
                .text(heap, &letter.step)
                .integer(letter.at)
                .bytes(heap, &letter.body);
        }
    }

    fn push_documents(&mut self, transition: &Transition<'_>) {
        let heap = &mut self.heap;
        for row in &transition.commit.documents {
            self.documents
                .integer(row.kind.into())
                .text(heap, &row.id)
                .text(heap, &row.tenant)
                .optional_bytes(heap, row.parent.as_deref().map(str::as_bytes))
                .integer(row.status.into())
                .integer(row.created_at)
                .integer(row.updated_at)
                .optional_integer(row.due_at)
                .integer(row.version)
                .bytes(heap, &row.body);
        }
        for row in &transition.commit.audit {
            self.audit
                .text(heap, &row.resource)
                .integer(row.number)
                .integer(row.at)
                .text(heap, &row.actor)
                .text(heap, &row.action)
                .bytes(heap, &row.body)
                .hash(row.previous)
                .hash(row.hash);
        }
    }
}
