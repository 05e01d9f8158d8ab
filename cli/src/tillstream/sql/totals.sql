-- Per window: how many sales and returns, and what they came to.
SELECT
    w.name,
    count(DISTINCT c.event) FILTER (c.type = 'sale') AS orders,
    coalesce(sum(c.net) FILTER (c.type = 'sale'), 0) AS sales_minor,
    count(DISTINCT c.event) FILTER (c.type = 'return') AS returns,
    coalesce(-sum(c.net) FILTER (c.type = 'return'), 0) AS refunded_minor,
    coalesce(sum(c.net), 0) AS revenue_minor,
    coalesce(sum(c.quantity), 0) AS units
FROM windows AS w
LEFT JOIN counted AS c ON c.event_ms >= w.start_ms AND c.event_ms < w.end_ms
GROUP BY w.name
