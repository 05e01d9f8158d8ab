-- The files ($files) of dead letters into shelf. A letter that was sent twice is one: any of its copies, they are equal.
INSERT INTO shelf
SELECT DISTINCT ON (name)
    format('{}/{}/{}', stream, partition, position) AS name, epoch_ms(broker_time), reason, detail, raw_bytes,
    filename, file_row_number
FROM read_parquet($files, filename = true, file_row_number = true, hive_partitioning = false)
