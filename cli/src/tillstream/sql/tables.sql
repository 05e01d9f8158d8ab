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
    stream VARCHAR, partition VARCHAR, position VARCHAR, accepted_ms BIGINT, object INTEGER
);
CREATE TABLE regions (country VARCHAR, region VARCHAR);
CREATE TABLE letters (stream VARCHAR, partition VARCHAR, position VARCHAR, reason VARCHAR);
-- Extents by their markers: how many of their messages were malformed, and whether the marker told which (rejected).
CREATE TABLE extents (stream VARCHAR, partition VARCHAR, after VARCHAR, last VARCHAR, rejected BIGINT, told BOOLEAN);
CREATE TABLE rejected (stream VARCHAR, partition VARCHAR, position VARCHAR);
-- Of the messages up to the tick those that became dead letters; a letter that was sent twice is one.
CREATE VIEW refused AS
SELECT DISTINCT l.stream, l.partition, l.position, l.reason
FROM letters AS l
JOIN tick AS t USING (stream, partition)
WHERE l.position <= t.position;
