-- Each item that is due beside what a source holds under its order id. An item of another stream or incarnation came
-- first and stays; so neither it nor what is due instead is compared.
CREATE OR REPLACE TABLE pairs AS
WITH sources AS (
    SELECT unnest(['table', 'index']) AS source
)
SELECT
    coalesce(d.source, i.source) AS source, coalesce(d.order_id, i.order_id) AS order_id, d, i,
    CASE
        -- The index lane writes a partition in its order, round by round, so what lies behind the last item is yet to
        -- come. The last one of the reading before: while this one went on, items came behind its back and in front of it.
        WHEN i.order_id IS NULL AND (r.position IS NULL OR d.position > r.position) THEN 'to come'
        WHEN d.order_id IS NULL AND (t.position IS NULL OR i.position > t.position) THEN 'beyond the tick'
        WHEN d.stream <> i.stream THEN 'of another stream'
        ELSE 'compared'
    END AS state
FROM (FROM due_items CROSS JOIN sources) AS d
FULL JOIN items AS i ON (i.source, i.order_id) = (d.source, d.order_id)
LEFT JOIN reached AS r ON (r.stream, r.partition) = (d.stream, d.partition)
LEFT JOIN tick AS t ON (t.stream, t.partition) = (i.stream, i.partition)
