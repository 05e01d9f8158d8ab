-- As letters.sql, partition by partition.
WITH refused AS (
    SELECT DISTINCT l.stream, l.partition, l.position, l.reason
    FROM letters AS l
    JOIN tick AS t USING (stream, partition)
    WHERE l.position <= t.position
)
SELECT partition, reason, count(*) FROM refused GROUP BY ALL
