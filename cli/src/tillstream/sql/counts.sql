-- Events up to the tick: how many; of those that repeat an identity how many repeat its content too (duplicates), and how
-- many don't (conflicts), and of both those whose event times are at most $remembered ms before the latest; the latest.
WITH latest AS (
    SELECT max(event_ms) AS event_ms FROM applied
),
identities AS (
    SELECT stream, partition, order_id, event_ms, min(position) AS standing
    FROM applied
    GROUP BY ALL
    HAVING count(DISTINCT position) > 1
),
contents AS (
    SELECT
        stream, partition, order_id, event_ms, position, standing,
        list(
            (type, customer_id, country, currency, original_order_id, product_id, product_name, category, quantity,
                unit_amount, discount_percent, unit_cost) ORDER BY line
        ) AS content
    FROM applied
    JOIN identities USING (stream, partition, order_id, event_ms)
    GROUP BY ALL
),
repeated AS (
    SELECT later.event_ms, later.content = first.content AS same
    FROM contents AS later
    JOIN contents AS first USING (stream, partition, order_id, event_ms, standing)
    WHERE first.position = standing AND later.position > standing
)
SELECT
    (SELECT count(*) FROM (SELECT DISTINCT stream, partition, position FROM applied)),
    count(*) FILTER (same),
    count(*) FILTER (NOT same),
    count(*) FILTER (same AND event_ms >= (FROM latest) - $remembered),
    count(*) FILTER (NOT same AND event_ms >= (FROM latest) - $remembered),
    (FROM latest)
FROM repeated
