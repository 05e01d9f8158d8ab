-- The events up to the tick that repeat an identity, and whether they repeat its content too: with the same content as
-- the one at the lowest position they are duplicates, with another conflicts.
CREATE TABLE repeated AS
WITH identities AS (
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
)
SELECT later.stream, later.partition, later.position, later.event_ms, later.content = first.content AS same
FROM contents AS later
JOIN contents AS first USING (stream, partition, order_id, event_ms, standing)
WHERE first.position = standing AND later.position > standing
