-- Of the messages up to the tick those that became dead letters, by reason; a letter that was sent twice is one.
WITH refused AS (
    SELECT DISTINCT l.stream, l.partition, l.position, l.reason
    FROM letters AS l
    JOIN tick AS t USING (stream, partition)
    WHERE l.position <= t.position
)
SELECT reason, count(*) FROM refused GROUP BY reason
