-- Replicas that share this database, runs that wait in nobody's memory, and keys that span runs.

CREATE TABLE replicas (
    id uuid NOT NULL PRIMARY KEY,
    epoch int8 NOT NULL,     -- greater than that of every replica before
    address text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    kinds int2 NOT NULL,     -- the highest kind of event that it understands
    lease int8 NOT NULL,     -- counts heartbeats; unchanged for the time of a lease: dead
    status int2 NOT NULL,    -- 1 serving, 2 draining, 3 fenced
    started_at int8 NOT NULL,
    seen_at int8 NOT NULL    -- its own wall clock at its last heartbeat
);

-- One row, which outlives all replicas.
CREATE TABLE epochs (
    one int2 NOT NULL PRIMARY KEY CHECK (one = 1),
    last int8 NOT NULL
);

INSERT INTO epochs (one, last) VALUES (1, 0);

-- Unfinished runs that nobody owns until they wake or are asked something.
CREATE TABLE parked (
    run_id uuid NOT NULL PRIMARY KEY,
    wake_at int8
);

CREATE INDEX parked_by_wake ON parked (wake_at) WHERE wake_at IS NOT NULL;

-- Concurrency keys and rate limits, changed by compare-and-swap.
CREATE TABLE keys (
    kind int2 NOT NULL,
    key text COLLATE "C" NOT NULL,
    version int8 NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (kind, key)
);

-- The owner changes by adoption alone, not on every transition.
CREATE INDEX runs_by_owner ON runs (owner, run_id) WHERE ended_at IS NULL;

-- A run is updated at each transition, and with two commits under way its former versions are
-- not gone yet when the next one comes. With more room on its page most updates stay there and
-- touch no index; the table gets smaller by it, not larger.
ALTER TABLE runs SET (fillfactor = 40);
