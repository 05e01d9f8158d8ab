-- Per window every category, region and country with an event inside. A sale counts once in each category it has a
-- line of.
WITH labelled AS (
    SELECT 'category' AS kind, category AS label, * FROM counted
    UNION ALL
    SELECT 'region' AS kind, region AS label, * FROM counted
    UNION ALL
    SELECT 'country' AS kind, country AS label, * FROM counted
)
SELECT
    w.name,
    l.kind,
    l.label,
    sum(l.quantity) AS units,
    sum(l.net) AS revenue,
    count(DISTINCT l.event) FILTER (l.type = 'sale') AS orders
FROM windows AS w
JOIN labelled AS l ON l.event_ms >= w.start_ms AND l.event_ms < w.end_ms
GROUP BY ALL
