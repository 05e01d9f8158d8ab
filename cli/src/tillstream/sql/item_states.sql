-- How many pairs of each source are in each state.
SELECT source, state, count(*) FROM pairs GROUP BY ALL ORDER BY ALL
