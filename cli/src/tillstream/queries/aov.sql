-- Orders, their revenue and the average order value of each day and region; sales alone, in minor units.
SELECT dt, region, orders, revenue, CAST(revenue AS double) / orders AS aov
FROM (
    SELECT dt, region, count(*) FILTER (WHERE line = 1) AS orders, sum(net_amount) AS revenue
    FROM sales
    WHERE dt BETWEEN '$first_day' AND '$last_day'
        AND event_time >= TIMESTAMP '$since' AND event_time < TIMESTAMP '$until'
        AND type = 'sale'
    GROUP BY dt, region
) AS summed
ORDER BY dt, region
