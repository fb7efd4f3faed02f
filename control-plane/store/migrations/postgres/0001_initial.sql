-- Times are microseconds since the Unix epoch, hashes SHA-256 of 32 bytes. Texts are collated by
-- bytes, so that pages are ordered as on SQLite.

-- Room on each page for heap-only updates: no index is on a column that changes on every
-- transition.
CREATE TABLE runs (
    run_id uuid NOT NULL PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    version_name text COLLATE "C" NOT NULL,
    definition_hash bytea NOT NULL,
    status int2 NOT NULL,
    version int8 NOT NULL, -- the last sequence number in the journal; compared and swapped
    owner uuid,            -- changed by adoption alone
    adopted_at int8,
    created_at int8 NOT NULL,
    ended_at int8,
    parent uuid,
    priority int2 NOT NULL,
    labels bytea NOT NULL,
    summary bytea NOT NULL,
    wake_at int8
) WITH (fillfactor = 70);

CREATE INDEX runs_by_creation ON runs (created_at, run_id);
CREATE INDEX runs_by_workflow ON runs (workflow, created_at, run_id);
CREATE INDEX runs_by_parent ON runs (parent, created_at, run_id) WHERE parent IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (run_id) WHERE ended_at IS NULL;
CREATE INDEX runs_by_end ON runs (ended_at, run_id) WHERE ended_at IS NOT NULL;

CREATE TABLE journal (
    run_id uuid NOT NULL,
    seq int8 NOT NULL,
    at int8 NOT NULL,
    kind int2 NOT NULL,
    schema int2 NOT NULL,
    body bytea, -- NULL when the body is the blob
    blob bytea,
    PRIMARY KEY (run_id, seq)
);

CREATE TABLE blobs (
    hash bytea NOT NULL PRIMARY KEY,
    touched_at int8 NOT NULL,
    content bytea NOT NULL
);

CREATE INDEX blobs_by_touch ON blobs (touched_at);

-- Which blobs a run needs, be it for bodies or for payloads within them.
CREATE TABLE run_blobs (
    run_id uuid NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (run_id, hash)
);

CREATE INDEX run_blobs_by_hash ON run_blobs (hash);

CREATE TABLE requests (
    tenant text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    run_id uuid,
    body_hash bytea NOT NULL,
    at int8 NOT NULL,
    response bytea,
    PRIMARY KEY (tenant, request_id)
);

CREATE INDEX requests_by_time ON requests (at);

CREATE TABLE dead_letters (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    step text COLLATE "C" NOT NULL,
    at int8 NOT NULL,
    body bytea NOT NULL
);

CREATE INDEX dead_letters_by_time ON dead_letters (at, id);
CREATE INDEX dead_letters_by_run ON dead_letters (run_id, at, id);

CREATE TABLE definitions (
    hash bytea NOT NULL PRIMARY KEY,
    content bytea NOT NULL
);

CREATE TABLE workflows (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    ordinal int8 NOT NULL, -- the order of first registration within the name
    definition_hash bytea NOT NULL,
    etag text COLLATE "C" NOT NULL,
    registered_at int8 NOT NULL,
    summary bytea NOT NULL,
    PRIMARY KEY (tenant, name, version),
    UNIQUE (tenant, name, ordinal)
);

CREATE TABLE schedules (
    tenant text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    schedule text COLLATE "C" NOT NULL,
    spec bytea NOT NULL,
    version int8 NOT NULL,
    last_instant int8,
    owner uuid,
    PRIMARY KEY (tenant, workflow, schedule)
);
