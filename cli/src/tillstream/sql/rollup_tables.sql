-- The rollups of closed minutes, by source: S3 ('rollups') and SalesTrends ('trends'). Amounts in minor units.
CREATE OR REPLACE TABLE rollups (
    source VARCHAR, scope VARCHAR, minute_ms BIGINT, version BIGINT, orders BIGINT, returns BIGINT, units BIGINT,
    sales_minor BIGINT, refunded_minor BIGINT, revenue_minor BIGINT, stale BOOLEAN
);
