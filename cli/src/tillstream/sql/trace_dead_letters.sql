-- Every archived dead letter whose message may be of an order: the id is its key, or ($quoted) a text inside it.
SELECT DISTINCT ON (stream, partition, position)
    stream, partition, position, parse_filename(filename, true)::INTEGER AS object, reason, detail, key, raw
FROM read_parquet($files, filename = true, hive_partitioning = false)
WHERE key = encode($order_id) OR contains(hex(raw), hex(encode($quoted)))
ORDER BY stream, partition, position
