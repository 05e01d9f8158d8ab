-- The downloaded files ($files, named by the object's number) into lines.
INSERT INTO lines BY NAME
SELECT
    * EXCLUDE (event_time, accepted_at, filename),
    epoch_ms(event_time) AS event_ms,
    epoch_ms(accepted_at) AS accepted_ms,
    parse_filename(filename, true)::INTEGER AS object
FROM read_parquet($files, filename = true, hive_partitioning = false)
