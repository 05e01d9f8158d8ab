-- The ten products of each hour with the most revenue, and their units; net of returns, in minor units.
SELECT dt, hour, place, product_id, product_name, units, revenue
FROM (
    SELECT
        dt, hour, product_id, max(product_name) AS product_name, sum(quantity) AS units, sum(net_amount) AS revenue,
        row_number() OVER (PARTITION BY dt, hour ORDER BY sum(net_amount) DESC, product_id DESC) AS place
    FROM sales
    WHERE dt BETWEEN '$first_day' AND '$last_day'
        AND event_time >= TIMESTAMP '$since' AND event_time < TIMESTAMP '$until'
    GROUP BY dt, hour, product_id
) AS ranked
WHERE place <= 10
ORDER BY dt, hour, place
