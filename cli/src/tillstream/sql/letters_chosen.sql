-- The letters that are meant, by broker time and place; an empty list chooses all.
SELECT
    s.name, strftime(make_timestamp(s.broker_ms * 1000), '%Y-%m-%dT%H:%M:%S.%gZ'), s.reason, s.detail, s.raw_bytes,
    s.name IN (SELECT r.name FROM replayed AS r)
FROM shelf AS s
WHERE (len($reasons::VARCHAR[]) = 0 OR list_contains($reasons::VARCHAR[], s.reason))
    AND (len($names::VARCHAR[]) = 0 OR list_contains($names::VARCHAR[], s.name))
    AND s.broker_ms >= coalesce($since::BIGINT, s.broker_ms)
    AND s.broker_ms < coalesce($until::BIGINT, s.broker_ms + 1)
ORDER BY s.broker_ms, s.name
