-- Where what is stored contradicts itself: (what, place, expected, found), nothing when all is well.
WITH held AS (
    SELECT object, count(*) AS rows, count(DISTINCT position) AS orders FROM lines GROUP BY object
),
priced AS (
    SELECT
        *,
        CASE type WHEN 'return' THEN -1 ELSE 1 END AS sign,
        abs(quantity::HUGEINT) * unit_amount AS whole,
        (abs(quantity::HUGEINT) * unit_amount * discount_percent + 50) // 100 AS discount
    FROM lines
),
amounts AS (
    SELECT
        *,
        [sign * whole, sign * discount, sign * (whole - discount), sign * (whole - discount) - quantity::HUGEINT * unit_cost]
            AS derived,
        [gross_amount, discount_amount, net_amount, profit_amount] AS stored
    FROM priced
),
orders AS (
    SELECT
        stream, partition, position, count(*) AS rows, min(line) AS first, max(line) AS last,
        count(DISTINCT line) AS numbers,
        count(DISTINCT (order_id, type, event_ms, customer_id, country, region, currency, original_order_id)) AS heads
    FROM lines
    GROUP BY ALL
)
SELECT 'rows of an object' AS what, o.key AS place,
    format('{} rows of {} orders', o.marked_rows, o.marked_orders) AS expected,
    format('{} rows of {} orders', coalesce(h.rows, 0), coalesce(h.orders, 0)) AS found
FROM objects AS o
LEFT JOIN held AS h USING (object)
WHERE (o.marked_rows, o.marked_orders) IS DISTINCT FROM (coalesce(h.rows, 0), coalesce(h.orders, 0))
UNION ALL
SELECT 'a row outside its extent', o.key,
    format('{}/{} in ({}, {}]', o.stream, o.partition, coalesce(o.after, 'origin'), o.last),
    format('{}/{} at {}', l.stream, l.partition, l.position)
FROM lines AS l
JOIN objects AS o USING (object)
WHERE (l.stream, l.partition) IS DISTINCT FROM (o.stream, o.partition)
    OR l.position <= coalesce(o.after, '') OR l.position > o.last
UNION ALL
SELECT 'a row in the wrong hour', o.key, format('dt={}/hour={}', o.dt, o.hour),
    format('order {} of {}', l.order_id, strftime(make_timestamp(l.event_ms * 1000), '%Y-%m-%dT%H:%M:%S'))
FROM lines AS l
JOIN objects AS o USING (object)
WHERE (o.dt, o.hour) IS DISTINCT FROM (
    strftime(make_timestamp(l.event_ms * 1000), '%Y-%m-%d'), hour(make_timestamp(l.event_ms * 1000))
)
UNION ALL
SELECT 'lines of an order', format('{}/{}/{}', stream, partition, position),
    format('lines 1 to {}, once each, of one order', last),
    format('{} rows, numbered {} to {}, {} heads', rows, first, last, heads)
FROM orders
WHERE rows <> last OR first <> 1 OR numbers <> rows OR heads <> 1
UNION ALL
SELECT 'amounts of a line', format('{}/{}/{} line {}', stream, partition, position, line),
    format('gross, discount, net, profit {}', derived::VARCHAR), stored::VARCHAR
FROM amounts
WHERE stored IS DISTINCT FROM derived OR sign * quantity < 1 OR type NOT IN ('sale', 'return')
UNION ALL
SELECT 'region of a line', format('{}/{}/{} line {}', l.stream, l.partition, l.position, l.line),
    format('{} for {}', coalesce(r.region, 'Unknown'), l.country), l.region
FROM lines AS l
LEFT JOIN regions AS r USING (country)
WHERE l.region IS DISTINCT FROM coalesce(r.region, 'Unknown')
UNION ALL
SELECT 'a malformed message', format('{}/{}/{}', r.stream, r.partition, r.position), 'no rows', format('{} rows', o.rows)
FROM rejected AS r
JOIN orders AS o USING (stream, partition, position)
UNION ALL
SELECT 'partitions of an identity', format('order {}', order_id), 'one partition',
    list(DISTINCT format('{}/{}', stream, partition) ORDER BY format('{}/{}', stream, partition))::VARCHAR
FROM applied
GROUP BY order_id, event_ms
HAVING count(DISTINCT (stream, partition)) > 1
ORDER BY ALL
