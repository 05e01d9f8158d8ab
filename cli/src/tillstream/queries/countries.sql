-- Orders, units and revenue of each country, most revenue first; net of returns, in minor units.
SELECT
    country, region,
    count(*) FILTER (WHERE line = 1 AND type = 'sale') AS orders,
    count(*) FILTER (WHERE line = 1 AND type = 'return') AS returns,
    sum(quantity) AS units, sum(net_amount) AS revenue
FROM sales
WHERE dt BETWEEN '$first_day' AND '$last_day'
    AND event_time >= TIMESTAMP '$since' AND event_time < TIMESTAMP '$until'
GROUP BY country, region
ORDER BY revenue DESC, country
