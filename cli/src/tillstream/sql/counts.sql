-- Events up to the tick: all that were well-formed; those that count; those that repeat an identity, and of them
-- those of event times from $start on.
WITH events AS (
    SELECT DISTINCT stream, partition, position, event_ms FROM applied
),
repeated AS (
    SELECT e.event_ms
    FROM events AS e
    ANTI JOIN counted AS c USING (stream, partition, position)
)
SELECT
    (SELECT count(*) FROM events),
    (SELECT count(*) FROM events) - (SELECT count(*) FROM repeated),
    (SELECT count(*) FROM repeated),
    (SELECT count(*) FROM repeated WHERE event_ms >= $start)
