-- Of the messages up to the tick those that became dead letters, by reason.
SELECT reason, count(*) FROM refused GROUP BY reason
