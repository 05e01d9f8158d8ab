-- Per minute in [$start, $end), for all regions together ('') and for each.
WITH placed AS (
    SELECT '' AS place, * FROM counted
    UNION ALL
    SELECT region AS place, * FROM counted
)
SELECT
    place,
    event_ms // 60000 * 60000 AS minute_ms,
    sum(quantity) AS units,
    sum(net) AS revenue,
    count(DISTINCT event) FILTER (type = 'sale') AS orders
FROM placed
WHERE event_ms >= $start AND event_ms < $end
GROUP BY ALL
