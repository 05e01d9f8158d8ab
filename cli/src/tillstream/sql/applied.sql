-- What the tick had applied, with the amounts worked out again from quantity, price and discount (never the stored
-- sums) and the region from the country, and of that what counts: of events with one identity (order_id, event_time)
-- the one at the lowest position.
-- In 128 bits: what was tampered with may be beyond what an order can be, and has to show as a difference.
CREATE TABLE applied AS
WITH priced AS (
    SELECT
        l.* EXCLUDE (region),
        coalesce(r.region, 'Unknown') AS region,
        CASE l.type WHEN 'return' THEN -1 ELSE 1 END AS sign,
        abs(l.quantity::HUGEINT) * l.unit_amount AS whole
    FROM lines AS l
    JOIN tick AS t USING (stream, partition)
    LEFT JOIN regions AS r USING (country)
    WHERE l.position <= t.position
)
SELECT *, sign * (whole - (whole * discount_percent + 50) // 100) AS net
FROM priced;

-- Events get a number here, because numbers are counted faster than places.
CREATE TABLE counted AS
WITH standing AS (
    SELECT stream, partition, order_id, event_ms, min(position) AS position, row_number() OVER () AS event
    FROM applied
    GROUP BY ALL
)
SELECT a.*, s.event
FROM applied AS a
JOIN standing AS s USING (stream, partition, order_id, event_ms, position);
