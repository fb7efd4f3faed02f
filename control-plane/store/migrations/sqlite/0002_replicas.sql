-- Replicas that share this database, runs that wait in nobody's memory, and keys that span runs.

CREATE TABLE replicas (
    id BLOB NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,  -- greater than that of every replica before
    address TEXT NOT NULL,
    version TEXT NOT NULL,
    kinds INTEGER NOT NULL,  -- the highest kind of event that it understands
    lease INTEGER NOT NULL,  -- counts heartbeats; unchanged for the time of a lease: dead
    status INTEGER NOT NULL, -- 1 serving, 2 draining, 3 fenced
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL -- its own wall clock at its last heartbeat
) STRICT;

-- One row, which outlives all replicas.
CREATE TABLE epochs (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;

INSERT INTO epochs (one, last) VALUES (1, 0);

-- Unfinished runs that nobody owns until they wake or are asked something.
CREATE TABLE parked (
    run_id BLOB NOT NULL PRIMARY KEY,
    wake_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX parked_by_wake ON parked (wake_at) WHERE wake_at IS NOT NULL;

-- Concurrency keys and rate limits, changed by compare-and-swap.
CREATE TABLE keys (
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- The owner changes by adoption alone, not on every transition.
CREATE INDEX runs_by_owner ON runs (owner, run_id) WHERE ended_at IS NULL;
