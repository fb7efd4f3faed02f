-- Resources that are no journals, and the audit log.

CREATE TABLE documents (
    kind INTEGER NOT NULL,
    id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    parent TEXT,              -- a run's id, or that of another document
    status INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    due_at INTEGER,
    version INTEGER NOT NULL, -- compared and swapped
    body BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

CREATE INDEX documents_by_creation ON documents (kind, created_at, id);
CREATE INDEX documents_by_status ON documents (kind, status, created_at, id);
CREATE INDEX documents_by_parent ON documents (parent, kind, created_at, id)
    WHERE parent IS NOT NULL;
CREATE INDEX documents_by_due ON documents (kind, due_at, id) WHERE due_at IS NOT NULL;

-- Only ever added to. A row's hash is over its other columns, and so over the row before.
CREATE TABLE audit (
    resource TEXT NOT NULL,
    number INTEGER NOT NULL,  -- from 1, without gaps
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    body BLOB NOT NULL,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (resource, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_by_time ON audit (at, resource, number);

-- Which rows of the audit log no seal covers yet.
CREATE TABLE audit_unsealed (
    resource TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (resource, number)
) STRICT, WITHOUT ROWID;
