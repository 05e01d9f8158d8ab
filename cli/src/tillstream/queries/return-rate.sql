-- What each category sold, what came back, and that in percent of the units sold; empty where none was sold.
SELECT category, sold, returned, 100 * CAST(returned AS double) / nullif(sold, 0) AS percent
FROM (
    SELECT
        category,
        sum(CASE WHEN type = 'sale' THEN quantity ELSE 0 END) AS sold,
        sum(CASE WHEN type = 'return' THEN -quantity ELSE 0 END) AS returned
    FROM sales
    WHERE dt BETWEEN '$first_day' AND '$last_day'
        AND event_time >= TIMESTAMP '$since' AND event_time < TIMESTAMP '$until'
    GROUP BY category
) AS summed
ORDER BY category
