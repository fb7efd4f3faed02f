-- Times are microseconds since the Unix epoch, ids 16 bytes, hashes SHA-256 of 32 bytes.

CREATE TABLE runs (
    run_id BLOB NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    workflow TEXT NOT NULL,
    version_name TEXT NOT NULL,
    definition_hash BLOB NOT NULL,
    status INTEGER NOT NULL,
    version INTEGER NOT NULL, -- the last sequence number in the journal; compared and swapped
    owner BLOB,               -- changed by adoption alone
    adopted_at INTEGER,
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    parent BLOB,
    priority INTEGER NOT NULL,
    labels BLOB NOT NULL,
    summary BLOB NOT NULL,
    wake_at INTEGER
) STRICT;

-- None of these is on a column that changes on every transition.
CREATE INDEX runs_by_creation ON runs (created_at, run_id);
CREATE INDEX runs_by_workflow ON runs (workflow, created_at, run_id);
CREATE INDEX runs_by_parent ON runs (parent, created_at, run_id) WHERE parent IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (run_id) WHERE ended_at IS NULL;
CREATE INDEX runs_by_end ON runs (ended_at, run_id) WHERE ended_at IS NOT NULL;

CREATE TABLE journal (
    run_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    schema INTEGER NOT NULL,
    body BLOB, -- NULL when the body is the blob
    blob BLOB,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
    hash BLOB NOT NULL PRIMARY KEY,
    touched_at INTEGER NOT NULL,
    content BLOB NOT NULL
) STRICT;

CREATE INDEX blobs_by_touch ON blobs (touched_at);

-- Which blobs a run needs, be it for bodies or for payloads within them.
CREATE TABLE run_blobs (
    run_id BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (run_id, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX run_blobs_by_hash ON run_blobs (hash);

CREATE TABLE requests (
    tenant TEXT NOT NULL,
    request_id TEXT NOT NULL,
    run_id BLOB,
    body_hash BLOB NOT NULL,
    at INTEGER NOT NULL,
    response BLOB,
    PRIMARY KEY (tenant, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX requests_by_time ON requests (at);

CREATE TABLE dead_letters (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    run_id BLOB NOT NULL,
    workflow TEXT NOT NULL,
    step TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX dead_letters_by_time ON dead_letters (at, id);
CREATE INDEX dead_letters_by_run ON dead_letters (run_id, at, id);

CREATE TABLE definitions (
    hash BLOB NOT NULL PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;

CREATE TABLE workflows (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    ordinal INTEGER NOT NULL, -- the order of first registration within the name
    definition_hash BLOB NOT NULL,
    etag TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    summary BLOB NOT NULL,
    PRIMARY KEY (tenant, name, version),
    UNIQUE (tenant, name, ordinal)
) STRICT;

CREATE TABLE schedules (
    tenant TEXT NOT NULL,
    workflow TEXT NOT NULL,
    schedule TEXT NOT NULL,
    spec BLOB NOT NULL,
    version INTEGER NOT NULL,
    last_instant INTEGER,
    owner BLOB,
    PRIMARY KEY (tenant, workflow, schedule)
) STRICT;
