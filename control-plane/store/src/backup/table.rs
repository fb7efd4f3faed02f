//! The tables that a backup holds, their columns, and values as no database has them.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Id,
    Short,
    Long,
    Text,
    Bytes,
}

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, Kind)],
}

/// What stands in a column. An id is 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

use Kind::{Bytes, Id, Long, Short, Text};

/// In the order of the schema. A backup names tables by their place here: what is new comes last.
pub(crate) const TABLES: &[Table] = &[
    Table {
        name: "runs",
        columns: &[
            ("run_id", Id),
            ("tenant", Text),
            ("workflow", Text),
            ("version_name", Text),
            ("definition_hash", Bytes),
            ("status", Short),
            ("version", Long),
            ("owner", Id),
            ("adopted_at", Long),
            ("created_at", Long),
            ("ended_at", Long),
            ("parent", Id),
            ("priority", Short),
            ("labels", Bytes),
            ("summary", Bytes),
            ("wake_at", Long),
        ],
    },
    Table {
        name: "journal",
        columns: &[
            ("run_id", Id),
            ("seq", Long),
            ("at", Long),
            ("kind", Short),
            ("schema", Short),
            ("body", Bytes),
            ("blob", Bytes),
        ],
    },
    Table { name: "blobs", columns: &[("hash", Bytes), ("touched_at", Long), ("content", Bytes)] },
    Table { name: "run_blobs", columns: &[("run_id", Id), ("hash", Bytes)] },
    Table {
        name: "requests",
        columns: &[
            ("tenant", Text),
            ("request_id", Text),
            ("run_id", Id),
            ("body_hash", Bytes),
            ("at", Long),
            ("response", Bytes),
        ],
    },
    Table {
        name: "dead_letters",
        columns: &[
            ("id", Text),
            ("tenant", Text),
            ("run_id", Id),
            ("workflow", Text),
            ("step", Text),
            ("at", Long),
            ("body", Bytes),
        ],
    },
    Table { name: "definitions", columns: &[("hash", Bytes), ("content", Bytes)] },
    Table {
        name: "workflows",
        columns: &[
            ("tenant", Text),
            ("name", Text),
            ("version", Text),
            ("ordinal", Long),
            ("definition_hash", Bytes),
            ("etag", Text),
            ("registered_at", Long),
            ("summary", Bytes),
        ],
    },
    Table {
        name: "schedules",
        columns: &[
            ("tenant", Text),
            ("workflow", Text),
            ("schedule", Text),
            ("spec", Bytes),
            ("version", Long),
            ("last_instant", Long),
            ("owner", Id),
        ],
    },
    Table { name: "epochs", columns: &[("one", Short), ("last", Long)] },
    Table { name: "parked", columns: &[("run_id", Id), ("wake_at", Long)] },
    Table {
        name: "keys",
        columns: &[("kind", Short), ("key", Text), ("version", Long), ("body", Bytes)],
    },
    Table {
        name: "documents",
        columns: &[
            ("kind", Short),
            ("id", Text),
            ("tenant", Text),
            ("parent", Text),
            ("status", Short),
            ("created_at", Long),
            ("updated_at", Long),
            ("due_at", Long),
            ("version", Long),
            ("body", Bytes),
        ],
    },
    Table {
        name: "audit",
        columns: &[
            ("resource", Text),
            ("number", Long),
            ("at", Long),
            ("actor", Text),
            ("action", Text),
            ("body", Bytes),
            ("previous", Bytes),
            ("hash", Bytes),
        ],
    },
    Table { name: "audit_unsealed", columns: &[("resource", Text), ("number", Long)] },
];
