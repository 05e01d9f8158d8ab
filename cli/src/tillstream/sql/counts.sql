-- Events up to the tick: how many; of those that repeat an identity how many repeat its content too (duplicates), and how
-- many don't (conflicts), and of both those whose event times are at most $remembered ms before the latest; the latest.
WITH latest AS (
    SELECT max(event_ms) AS event_ms FROM applied
)
SELECT
    (SELECT count(*) FROM (SELECT DISTINCT stream, partition, position FROM applied)),
    count(*) FILTER (same),
    count(*) FILTER (NOT same),
    count(*) FILTER (same AND event_ms >= (FROM latest) - $remembered),
    count(*) FILTER (NOT same AND event_ms >= (FROM latest) - $remembered),
    (FROM latest)
FROM repeated
