-- Rows of the journal lie in the order in which they came, and are found by an index. In the order
-- of runs, each row of a batch was in a page of its own, and each page is written to the log whole.
-- Columns and key are as before, so the release before works on it.

CREATE TABLE journal_by_arrival (
    run_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    schema INTEGER NOT NULL,
    body BLOB, -- NULL when the body is the blob
    blob BLOB,
    PRIMARY KEY (run_id, seq)
) STRICT;

INSERT INTO journal_by_arrival (run_id, seq, at, kind, schema, body, blob)
    SELECT run_id, seq, at, kind, schema, body, blob FROM journal ORDER BY run_id, seq;

DROP TABLE journal;

ALTER TABLE journal_by_arrival RENAME TO journal;

-- Nothing is taken away: as old a release as before may run on it.
UPDATE schema_compatibility SET oldest = oldest WHERE one = 1;
