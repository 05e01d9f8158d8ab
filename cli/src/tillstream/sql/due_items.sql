-- What SalesData should hold for the events up to the tick: of each order id the event at the lowest position, worked out
-- from quantities, prices and discounts alone. Everything as text, as items has it.
CREATE TABLE due_items AS
WITH lowest AS (
    SELECT stream, order_id, min((position, partition)) AS place FROM applied GROUP BY ALL
),
standing AS (
    SELECT a.*, a.sign * a.whole AS gross, a.net - a.quantity::HUGEINT * a.unit_cost AS profit
    FROM applied AS a
    JOIN lowest AS l ON (l.stream, l.order_id, l.place) = (a.stream, a.order_id, (a.position, a.partition))
),
summed AS (
    SELECT
        stream, partition, position, order_id, any_value(type) AS type, any_value(event_ms) AS event_ms,
        any_value(customer_id) AS customer_id, any_value(country) AS country, any_value(region) AS region,
        any_value(currency) AS currency, any_value(original_order_id) AS original_order_id,
        arg_max((product_id, product_name, category), (abs(net), -line)) AS largest,
        sum(gross) AS gross, sum(net) AS net, if(count(unit_cost) = count(*), sum(profit), NULL) AS profit,
        string_agg(
            concat_ws('|', line, product_id, product_name, category, quantity, unit_amount, discount_percent, gross, net,
                coalesce(unit_cost::VARCHAR, 'no cost'), coalesce(profit::VARCHAR, 'no profit')),
            chr(10) ORDER BY line
        ) AS lines
    FROM standing
    GROUP BY stream, partition, position, order_id
),
-- The effective percentage in hundredths, half up.
rounded AS (
    SELECT *, if(gross = 0, 0, (20000 * abs(gross - net) + abs(gross)) // (2 * abs(gross))) AS hundredths FROM summed
)
SELECT
    order_id, type, strftime(make_timestamp(event_ms * 1000), '%Y-%m-%dT%H:%M:%S.%gZ') AS event_time,
    strftime(make_timestamp(event_ms * 1000), '%Y-%m-%d') AS order_date, customer_id::VARCHAR AS customer_id,
    country, region, currency, original_order_id, largest[1] AS product_id, largest[2] AS product_name,
    if(largest[3] = '', 'Uncategorised', largest[3]) AS category, gross::VARCHAR AS sales, hundredths::VARCHAR AS discount,
    net::VARCHAR AS net, profit::VARCHAR AS profit, stream, partition, position, lines
FROM rounded
