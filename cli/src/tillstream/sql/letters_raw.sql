-- As letters_chosen.sql, with keys and bytes, from the files ($files) as they lie there.
SELECT s.name, f.key, f.raw, s.raw_bytes, s.reason
FROM read_parquet($files, filename = true, file_row_number = true, hive_partitioning = false) AS f
JOIN shelf AS s ON s.file = f.filename AND s.row = f.file_row_number
WHERE (len($reasons::VARCHAR[]) = 0 OR list_contains($reasons::VARCHAR[], s.reason))
    AND (len($names::VARCHAR[]) = 0 OR list_contains($names::VARCHAR[], s.name))
    AND s.broker_ms >= coalesce($since::BIGINT, s.broker_ms)
    AND s.broker_ms < coalesce($until::BIGINT, s.broker_ms + 1)
