-- SQLite has no partitions: removing a run's rows is all there is to do.

-- The oldest release that works on this schema, by the newest schema that it knows. A migration
-- that takes away what a release before needs raises it.
CREATE TABLE schema_compatibility (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    oldest INTEGER NOT NULL
) STRICT;

INSERT INTO schema_compatibility (one, oldest) VALUES (1, 2);
