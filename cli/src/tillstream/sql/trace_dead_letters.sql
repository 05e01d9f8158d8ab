-- Every archived dead letter whose message carries an order id: as its key, or ($quoted) as a text inside its JSON.
SELECT DISTINCT ON (stream, partition, position)
    stream, partition, position, parse_filename(filename, true)::INTEGER AS object, reason, detail
FROM read_parquet($files, filename = true, hive_partitioning = false)
WHERE key = encode($order_id) OR contains(hex(raw), hex(encode($quoted)))
ORDER BY stream, partition, position
