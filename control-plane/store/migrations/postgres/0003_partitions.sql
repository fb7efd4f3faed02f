-- The journal in ranges of run ids, which begin with the time at which the run, or its root, was
-- made: a run lies in one partition, and a partition goes at once when its last run has gone.
-- Partitions are made ahead while the program runs. What lies in none of them is kept in a
-- default one: ids of other times, and few runs that outlive their partition.
ALTER TABLE journal RENAME TO journal_past;
ALTER INDEX journal_pkey RENAME TO journal_past_pkey;

CREATE TABLE journal (
    run_id uuid NOT NULL,
    seq int8 NOT NULL,
    at int8 NOT NULL,
    kind int2 NOT NULL,
    schema int2 NOT NULL,
    body bytea, -- NULL when the body is the blob
    blob bytea,
    PRIMARY KEY (run_id, seq)
) PARTITION BY RANGE (run_id);

CREATE TABLE journal_kept PARTITION OF journal DEFAULT;

-- What there was becomes a partition as it is, up to the millisecond behind its last run.
DO $$
DECLARE
    newest uuid;
    millis int8;
BEGIN
    SELECT run_id INTO newest FROM journal_past ORDER BY run_id DESC LIMIT 1;
    IF newest IS NULL THEN
        DROP TABLE journal_past;
        RETURN;
    END IF;
    millis := ('x' || substr(replace(newest::text, '-', ''), 1, 12))::bit(48)::int8 + 1;
    EXECUTE format(
        'ALTER TABLE journal ATTACH PARTITION journal_past FOR VALUES FROM (MINVALUE) TO (%L)',
        lpad(to_hex(millis), 12, '0') || repeat('0', 20)
    );
END $$;

-- The oldest release that works on this schema, by the newest schema that it knows. A migration
-- that takes away what a release before needs raises it.
CREATE TABLE schema_compatibility (
    one int2 NOT NULL PRIMARY KEY CHECK (one = 1),
    oldest int8 NOT NULL
);

INSERT INTO schema_compatibility (one, oldest) VALUES (1, 2);
