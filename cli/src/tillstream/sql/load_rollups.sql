-- The downloaded files of rollups ($files) into rollups.
INSERT INTO rollups
SELECT
    'rollups', scope, epoch_ms(minute), version, orders, returns, units, sales_minor, refunded_minor, revenue_minor, stale
FROM read_parquet($files, hive_partitioning = false)
