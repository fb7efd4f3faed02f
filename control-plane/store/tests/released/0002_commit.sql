-- A batch as releases of schema 2 commit it on PostgreSQL: a start in an array of one.
WITH inserted AS (INSERT INTO runs (run_id, tenant, workflow, version_name, definition_hash, status,
version, owner, created_at, ended_at, parent, priority, labels, summary, wake_at)
SELECT i.run_id, i.tenant, i.workflow, i.version_name, i.definition_hash, i.status, i.version,
i.owner, i.created_at, i.ended_at, i.parent, i.priority, i.labels, i.summary, i.wake_at
FROM unnest('{0187c0de-0000-7000-8000-000000000001}'::uuid[], '{default}'::text[],
'{build}'::text[], '{1.0.0}'::text[], ARRAY[sha256('')], '{1}'::int2[], '{2}'::int8[],
ARRAY[NULL]::uuid[], '{5}'::int8[], ARRAY[NULL]::int8[], ARRAY[NULL]::uuid[], '{0}'::int2[],
ARRAY['{}']::bytea[], ARRAY['{}']::bytea[], ARRAY[NULL]::int8[])
AS i(run_id, tenant, workflow, version_name, definition_hash, status, version,
owner, created_at, ended_at, parent, priority, labels, summary, wake_at)
ON CONFLICT DO NOTHING RETURNING run_id),
updated AS (UPDATE runs r SET status = u.status, version = u.version,
ended_at = u.ended_at, priority = u.priority, labels = u.labels,
summary = u.summary, wake_at = u.wake_at
FROM unnest('{}'::uuid[], '{}'::int8[], '{}'::uuid[], '{}'::int2[], '{}'::int8[],
'{}'::int8[], '{}'::int2[], '{}'::bytea[], '{}'::bytea[], '{}'::int8[])
AS u(run_id, expected, owner, status, version, ended_at, priority, labels, summary, wake_at)
WHERE r.run_id = u.run_id AND r.version = u.expected AND r.owner IS NOT DISTINCT FROM u.owner
RETURNING r.run_id),
won AS (SELECT run_id FROM inserted UNION ALL SELECT run_id FROM updated),
journaled AS (INSERT INTO journal (run_id, seq, at, kind, schema, body, blob)
SELECT * FROM unnest(ARRAY['0187c0de-0000-7000-8000-000000000001',
'0187c0de-0000-7000-8000-000000000001']::uuid[], '{1,2}'::int8[], '{5,5}'::int8[], '{3,3}'::int2[],
'{1,1}'::int2[], ARRAY['{}', '{}']::bytea[], ARRAY[NULL, NULL]::bytea[])
AS e(run_id, seq, at, kind, schema, body, blob)
WHERE (e.run_id IN (SELECT run_id FROM won)) IS TRUE)
SELECT array_agg(run_id) FROM won
