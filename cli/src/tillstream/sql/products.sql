-- Per window and measure the best $top products, best first: by value, then by id, both descending.
WITH summed AS (
    SELECT w.name, c.product_id, sum(c.quantity) AS units, sum(c.net) AS revenue
    FROM windows AS w
    JOIN counted AS c ON c.event_ms >= w.start_ms AND c.event_ms < w.end_ms
    GROUP BY ALL
),
measured AS (
    UNPIVOT summed ON units, revenue INTO NAME measure VALUE number
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY name, measure ORDER BY number DESC, product_id DESC) AS place
    FROM measured
)
SELECT name, measure, product_id, number
FROM ranked
WHERE place <= $top
ORDER BY name, measure, place
