-- Each category's revenue and its share of the whole in percent; net of returns, in minor units.
SELECT
    category, units, revenue,
    100 * CAST(revenue AS double) / nullif(sum(revenue) OVER (), 0) AS percent
FROM (
    SELECT category, sum(quantity) AS units, sum(net_amount) AS revenue
    FROM sales
    WHERE dt BETWEEN '$first_day' AND '$last_day'
        AND event_time >= TIMESTAMP '$since' AND event_time < TIMESTAMP '$until'
    GROUP BY category
) AS summed
ORDER BY revenue DESC, category
