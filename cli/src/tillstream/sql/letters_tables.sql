-- Dead letters without their bytes, each once, and the names of those that were sent again.
CREATE TABLE shelf (
    name VARCHAR, broker_ms BIGINT, reason VARCHAR, detail VARCHAR, raw_bytes BIGINT,
    file VARCHAR, row BIGINT
);
CREATE TABLE replayed (name VARCHAR);
