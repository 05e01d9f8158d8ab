-- How far the index lane was in each partition, as a reading of its table has shown: what lies before is written by the
-- end of that round, and a reading that begins later has to find it.
CREATE OR REPLACE TABLE reached AS
SELECT stream, partition, max(position) AS position FROM items WHERE source = 'table' GROUP BY ALL
