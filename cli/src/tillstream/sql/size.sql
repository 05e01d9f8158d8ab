-- How much was loaded.
SELECT (SELECT count(*) FROM objects), (SELECT count(*) FROM lines)
