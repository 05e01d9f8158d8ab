-- Every stored line of one order id, in the order of the stream.
SELECT
    stream, partition, position, parse_filename(filename, true)::INTEGER AS object,
    type, epoch_ms(event_time) AS event_ms, country, currency, net_amount, line,
    -- Of two events with one identity this decides whether the later is a duplicate or a conflict.
    (type, customer_id, country, currency, original_order_id, line, product_id, product_name, category, quantity,
        unit_amount, discount_percent, unit_cost)::VARCHAR AS content
FROM read_parquet($files, filename = true, hive_partitioning = false)
WHERE order_id = $order_id
ORDER BY stream, partition, position, line
