-- The downloaded files of dead letters ($files) into letters.
INSERT INTO letters
SELECT stream, partition, position, reason
FROM read_parquet($files, hive_partitioning = false)
