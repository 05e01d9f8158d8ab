"""What the sink needs from its account: definitions for boto3, for who creates them. Pure."""

from typing import Any

from sales.settings import StoreSettings

CATEGORY_INDEX = "CategoryIndex"

READ_UNITS = 5
WRITE_UNITS = 5
"""Provisioned capacity of each table and index: within AWS's free tier, and far below a busy shop's."""

UNFINISHED_UPLOAD_DAYS = 1
"""Nobody resumes an upload in parts; what a crash left behind is paid for until it is aborted."""


def sales_table(settings: StoreSettings) -> dict[str, Any]:
    """``SalesData``, for ``create_table``: orders by id, and by category through the index."""
    capacity = _capacity(settings)
    index = {
        "IndexName": CATEGORY_INDEX,
        "KeySchema": [{"AttributeName": "category", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    if "ProvisionedThroughput" in capacity:
        index["ProvisionedThroughput"] = capacity["ProvisionedThroughput"]
    return {
        "TableName": settings.sales_table,
        "KeySchema": [{"AttributeName": "order_id", "KeyType": "HASH"}],
        "AttributeDefinitions": [
            {"AttributeName": "order_id", "AttributeType": "S"},
            {"AttributeName": "category", "AttributeType": "S"},
        ],
        "GlobalSecondaryIndexes": [index],
        **capacity,
    }


def trends_table(settings: StoreSettings) -> dict[str, Any]:
    """``SalesTrends``, for ``create_table``: a scope's minutes in their order."""
    return {
        "TableName": settings.trends_table,
        "KeySchema": [
            {"AttributeName": "scope", "KeyType": "HASH"},
            {"AttributeName": "minute", "KeyType": "RANGE"},
        ],
        "AttributeDefinitions": [
            {"AttributeName": "scope", "AttributeType": "S"},
            {"AttributeName": "minute", "AttributeType": "S"},
        ],
        **_capacity(settings),
    }


def bucket_lifecycle(settings: StoreSettings) -> dict[str, Any]:
    """For ``put_bucket_lifecycle_configuration``: aborts unfinished uploads, removes forgotten probes. Nothing else may
    expire: the chain of extents needs all its links."""
    return {
        "Bucket": settings.s3_bucket,
        "LifecycleConfiguration": {
            "Rules": [
                {
                    "ID": "tillstream-abort-unfinished-uploads",
                    "Status": "Enabled",
                    "Filter": {"Prefix": settings.s3_prefix},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_UPLOAD_DAYS},
                },
                {
                    "ID": "tillstream-remove-probes",
                    "Status": "Enabled",
                    "Filter": {"Prefix": f"{settings.s3_prefix}_probe/"},
                    "Expiration": {"Days": UNFINISHED_UPLOAD_DAYS},
                },
            ]
        },
    }


def _capacity(settings: StoreSettings) -> dict[str, Any]:
    if settings.dynamodb_billing == "on-demand":
        return {"BillingMode": "PAY_PER_REQUEST"}
    units = {"ReadCapacityUnits": READ_UNITS, "WriteCapacityUnits": WRITE_UNITS}
    return {"BillingMode": "PROVISIONED", "ProvisionedThroughput": units}
