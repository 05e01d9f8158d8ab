-- Customers by the month of their first order in the span: how many buy again, and for how much, so many months later.
SELECT
    CAST(first_month AS date) AS cohort,
    date_diff('month', first_month, month) AS months_later,
    count(DISTINCT customer_id) AS customers,
    sum(net_amount) AS revenue
FROM (
    SELECT
        customer_id, net_amount, date_trunc('month', event_time) AS month,
        min(date_trunc('month', event_time)) OVER (PARTITION BY customer_id) AS first_month
    FROM sales
    WHERE dt BETWEEN '$first_day' AND '$last_day'
        AND event_time >= TIMESTAMP '$since' AND event_time < TIMESTAMP '$until'
        AND type = 'sale' AND customer_id IS NOT NULL
) AS bought
GROUP BY first_month, date_diff('month', first_month, month)
ORDER BY cohort, months_later
