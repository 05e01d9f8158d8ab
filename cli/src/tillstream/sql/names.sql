-- Each product's name since $start: of the latest event, then of the highest position. More than one where that event
-- itself has several, or where two partitions have the same position.
WITH latest AS (
    SELECT product_id, max((event_ms, position)) AS newest
    FROM counted
    WHERE event_ms >= $start
    GROUP BY product_id
)
SELECT c.product_id, list(DISTINCT c.product_name ORDER BY c.product_name)
FROM counted AS c
JOIN latest AS l ON l.product_id = c.product_id AND (c.event_ms, c.position) = l.newest
GROUP BY c.product_id
