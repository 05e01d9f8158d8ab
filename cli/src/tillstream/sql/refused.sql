-- Message by message: has each that must have one a dead letter, and no other? (what, place, expected, found) of all that
-- were compared.
-- Malformed is what the markers say; markers of earlier versions only count, and are compared by their counts.
-- A conflict is an event that repeats an identity with other content. Identities whose event times are more than
-- $remembered ms before the latest may be forgotten, and then any answer is right.
WITH untold AS (
    SELECT * FROM extents WHERE NOT told
),
marked AS (
    SELECT r.stream, r.partition, r.position
    FROM rejected AS r
    JOIN tick AS t USING (stream, partition)
    WHERE r.position <= t.position
),
malformed AS (
    SELECT DISTINCT stream, partition, position FROM refused WHERE reason <> 'conflict'
),
conflicts AS (
    SELECT DISTINCT stream, partition, position FROM refused WHERE reason = 'conflict'
),
due AS (
    SELECT
        stream, partition, position,
        CASE
            WHEN r.event_ms >= (SELECT max(event_ms) FROM applied) - $remembered THEN NOT r.same
            ELSE r.event_ms IS NOT NULL AND c.stream IS NOT NULL
        END AS expected,
        c.stream IS NOT NULL AS found
    FROM repeated AS r
    FULL JOIN conflicts AS c USING (stream, partition, position)
),
places AS (
    SELECT 'malformed' AS what, stream, partition, position, m.stream IS NOT NULL AS expected, l.stream IS NOT NULL AS found
    FROM marked AS m
    FULL JOIN malformed AS l USING (stream, partition, position)
    WHERE NOT EXISTS (
        FROM untold AS u
        WHERE (u.stream, u.partition) = (coalesce(m.stream, l.stream), coalesce(m.partition, l.partition))
            AND coalesce(m.position, l.position) > coalesce(u.after, '')
            AND coalesce(m.position, l.position) <= u.last
    )
    UNION ALL
    SELECT 'conflict', stream, partition, position, expected, found FROM due
)
SELECT
    what, format('{}/{}/{}', stream, partition, position) AS place,
    if(expected, 'a dead letter', 'none') AS expected, if(found, 'a dead letter', 'none') AS found
FROM places
UNION ALL
SELECT
    'malformed', format('{}/{} in ({}, {}]', u.stream, u.partition, coalesce(u.after, 'origin'), u.last),
    format('{} dead letters', u.rejected), format('{} dead letters', count(l.position))
FROM untold AS u
JOIN tick AS t ON (t.stream, t.partition) = (u.stream, u.partition) AND u.last <= t.position
LEFT JOIN malformed AS l ON (l.stream, l.partition) = (u.stream, u.partition)
    AND l.position > coalesce(u.after, '') AND l.position <= u.last
GROUP BY u.stream, u.partition, u.after, u.last, u.rejected
ORDER BY ALL
