-- Closed minutes worked out again from the events up to the tick, beside the rollups of a source: (source, scope, minute,
-- what, expected, found) of all that were compared.
-- The version counts the events inside, so totals of one version are of the same events. A higher one holds events
-- beyond the tick; stale totals lack an event and say so: neither is compared. A lower one, or none, is a difference in
-- minutes since $since that were closed by $settled (event time) and by the latest order of $by (broker time), all of
-- whose events were there by then: others may be on their way. All times in ms since 1970.
WITH scoped AS (
    SELECT 'all' AS scope, * FROM counted
    UNION ALL
    SELECT country || '/' || category AS scope, * FROM counted
),
due AS (
    SELECT
        scope, event_ms // 60000 * 60000 AS minute_ms, count(DISTINCT event) AS version,
        count(DISTINCT event) FILTER (type = 'sale') AS orders, count(DISTINCT event) FILTER (type = 'return') AS returns,
        sum(quantity) AS units, coalesce(sum(net) FILTER (type = 'sale'), 0) AS sales_minor,
        coalesce(-sum(net) FILTER (type = 'return'), 0) AS refunded_minor, sum(net) AS revenue_minor,
        max(accepted_ms) AS accepted_ms
    FROM scoped
    GROUP BY ALL
),
told AS (
    SELECT
        source, scope, minute_ms, bool_or(stale) AS stale,
        max((version, orders, returns, units, sales_minor, refunded_minor, revenue_minor)) FILTER (NOT stale) AS totals
    FROM rollups
    GROUP BY ALL
),
pairs AS (
    SELECT
        source, scope, minute_ms, d.version AS events, t.stale, t.totals[1] AS version,
        (d.orders, d.returns, d.units, d.sales_minor, d.refunded_minor, d.revenue_minor)::VARCHAR AS expected,
        (t.totals[2], t.totals[3], t.totals[4], t.totals[5], t.totals[6], t.totals[7])::VARCHAR AS found,
        d.minute_ms >= $since AND d.accepted_ms <= $by AND d.minute_ms + 90000 <= least(
            $settled, (SELECT max(a.event_ms) FROM applied AS a WHERE a.accepted_ms <= $by)
        ) AS settled
    FROM (FROM due CROSS JOIN (SELECT unnest($sources::VARCHAR[]) AS source)) AS d
    FULL JOIN told AS t USING (source, scope, minute_ms)
)
SELECT source, scope, minute_ms, 'orders, returns, units, sales, refunded, revenue', expected, found
FROM pairs
WHERE events = version AND NOT stale
UNION ALL
SELECT source, scope, minute_ms, 'version', events::VARCHAR, coalesce(version::VARCHAR, 'none')
FROM pairs
WHERE settled AND NOT coalesce(stale, false) AND events > coalesce(version, 0)
ORDER BY ALL
