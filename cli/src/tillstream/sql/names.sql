-- Each product's name since $start: that of the latest event, then of the highest position, the last partition, the last
-- line.
SELECT product_id, arg_max(product_name, (event_ms, position, stream, partition, line))
FROM counted
WHERE event_ms >= $start
GROUP BY product_id
