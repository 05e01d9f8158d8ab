-- Where an item is not what is due: (source, order id, attribute, expected, found).
WITH attributes AS (
    SELECT source, order_id, unnest(
        CASE
            WHEN d.order_id IS NULL THEN [{name: 'item', expected: 'none', found: 'there'}]
            WHEN i.order_id IS NULL THEN [{name: 'item', expected: 'there', found: 'none'}]
            ELSE [
                {name: 'type', expected: d.type, found: i.type},
                {name: 'event_time', expected: d.event_time, found: i.event_time},
                {name: 'order_date', expected: d.order_date, found: i.order_date},
                {name: 'customer_id', expected: d.customer_id, found: i.customer_id},
                {name: 'country', expected: d.country, found: i.country},
                {name: 'region', expected: d.region, found: i.region},
                {name: 'currency', expected: d.currency, found: i.currency},
                {name: 'original_order_id', expected: d.original_order_id, found: i.original_order_id},
                {name: 'product_id', expected: d.product_id, found: i.product_id},
                {name: 'product_name', expected: d.product_name, found: i.product_name},
                {name: 'category', expected: d.category, found: i.category},
                {name: 'sales', expected: d.sales, found: i.sales},
                {name: 'discount', expected: d.discount, found: i.discount},
                {name: 'net', expected: d.net, found: i.net},
                {name: 'profit', expected: d.profit, found: i.profit},
                {name: 'partition', expected: d.partition, found: i.partition},
                {name: 'position', expected: d.position, found: i.position},
                {name: 'lines', expected: if(i.lines = 'omitted', i.lines, d.lines), found: i.lines}
            ]
        END
    ) AS a
    FROM pairs
    WHERE state = 'compared'
)
SELECT source, order_id, a.name, coalesce(a.expected, 'absent'), coalesce(a.found, 'absent')
FROM attributes
WHERE a.expected IS DISTINCT FROM a.found
ORDER BY ALL
