-- As letters.sql, partition by partition.
SELECT partition, reason, count(*) FROM refused GROUP BY ALL
