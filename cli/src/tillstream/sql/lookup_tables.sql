-- What the tables of lookups hold, by source: SalesData ('table') and its CategoryIndex ('index'). Everything as text,
-- amounts in minor units; lines one below the other.
CREATE OR REPLACE TABLE items (
    source VARCHAR, order_id VARCHAR, type VARCHAR, event_time VARCHAR, order_date VARCHAR, customer_id VARCHAR,
    country VARCHAR, region VARCHAR, currency VARCHAR, original_order_id VARCHAR, product_id VARCHAR,
    product_name VARCHAR, category VARCHAR, sales VARCHAR, discount VARCHAR, net VARCHAR, profit VARCHAR,
    stream VARCHAR, partition VARCHAR, position VARCHAR, lines VARCHAR
);
