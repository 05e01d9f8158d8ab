-- Before SalesTrends is read again.
DELETE FROM rollups WHERE source = 'trends'
