-- The tables that the checks read: stored lines, the objects they came from, the tick's windows and positions.
-- All times are ms since 1970; positions are fixed-width text, compared as bytes.
CREATE TABLE objects (
    object INTEGER, key VARCHAR, dt VARCHAR, hour INTEGER,
    stream VARCHAR, partition VARCHAR, after VARCHAR, last VARCHAR,
    marked_rows BIGINT, marked_orders BIGINT
);
CREATE TABLE tick (stream VARCHAR, partition VARCHAR, position VARCHAR);
CREATE TABLE windows (name VARCHAR, start_ms BIGINT, end_ms BIGINT);
CREATE TABLE lines (
    order_id VARCHAR, type VARCHAR, event_ms BIGINT, customer_id BIGINT, country VARCHAR, region VARCHAR,
    currency VARCHAR, original_order_id VARCHAR, line INTEGER, product_id VARCHAR, product_name VARCHAR,
    category VARCHAR, quantity BIGINT, unit_amount BIGINT, discount_percent INTEGER, unit_cost BIGINT,
    gross_amount BIGINT, discount_amount BIGINT, net_amount BIGINT, profit_amount BIGINT,
    stream VARCHAR, partition VARCHAR, position VARCHAR, object INTEGER
);
CREATE TABLE regions (country VARCHAR, region VARCHAR);
CREATE TABLE letters (stream VARCHAR, partition VARCHAR, position VARCHAR, reason VARCHAR);
