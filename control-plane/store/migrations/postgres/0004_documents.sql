-- Resources that are no journals, and the audit log.

CREATE TABLE documents (
    kind int2 NOT NULL,
    id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    parent text COLLATE "C", -- a run's id, or that of another document
    status int2 NOT NULL,
    created_at int8 NOT NULL,
    updated_at int8 NOT NULL,
    due_at int8,
    version int8 NOT NULL,   -- compared and swapped
    body bytea NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE INDEX documents_by_creation ON documents (kind, created_at, id);
CREATE INDEX documents_by_status ON documents (kind, status, created_at, id);
CREATE INDEX documents_by_parent ON documents (parent, kind, created_at, id)
    WHERE parent IS NOT NULL;
CREATE INDEX documents_by_due ON documents (kind, due_at, id) WHERE due_at IS NOT NULL;

-- Only ever added to. A row's hash is over its other columns, and so over the row before.
CREATE TABLE audit (
    resource text COLLATE "C" NOT NULL,
    number int8 NOT NULL,    -- from 1, without gaps
    at int8 NOT NULL,
    actor text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (resource, number)
);

CREATE INDEX audit_by_time ON audit (at, resource, number);

-- Which rows of the audit log no seal covers yet.
CREATE TABLE audit_unsealed (
    resource text COLLATE "C" NOT NULL,
    number int8 NOT NULL,
    PRIMARY KEY (resource, number)
);
