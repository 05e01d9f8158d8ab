"""The stored tables and the view ``sales`` as AWS Glue has them, for Athena: definitions for boto3. Pure.

Folders are computed from a query's conditions (*partition projection*), so nothing has to crawl or to register them.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import pyarrow as pa

from sink.relations import TABLES, Relation, sales_view

_HIVE = {
    pa.string(): "string",
    pa.binary(): "binary",
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.timestamp("ms"): "timestamp",
}
_HIVE_PARTITION = {"varchar": "string", "integer": "int"}
_PRESTO_OF_HIVE = {"string": "varchar", "int": "integer"}
"""Where the two differ."""

_PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
}


def definitions(database: str, root: str, since: date) -> Iterator[dict[str, Any]]:
    """``TableInput`` of each table, then of the view.

    Args:
        database: their name for what they are in.
        root: where the tables' folders are: ``s3://bucket/prefix/``.
        since: the first day that Athena looks at. A question without a condition on ``dt`` has it list every hour from
            there on; orders of before are not found.
    """
    for table in TABLES:
        yield _table(table, f"{root}{table.folder}/", since)
    yield _view(database)


def holds(there: Any, wanted: Any) -> bool:
    """Is everything that is wanted there, with equal values? Glue adds fields of its own."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(holds(there.get(name), value) for name, value in wanted.items())
    return bool(there == wanted)


def _table(table: Relation, location: str, since: date) -> dict[str, Any]:
    hour = {"projection.hour.type": "integer", "projection.hour.range": "0,23", "projection.hour.digits": "2"}
    return {
        "Name": table.name,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": _partitions(table),
        "StorageDescriptor": {"Columns": _columns(table), "Location": location, **_PARQUET},
        "Parameters": {
            "EXTERNAL": "TRUE",
            "classification": "parquet",
            "projection.enabled": "true",
            "projection.dt.type": "date",
            "projection.dt.format": "yyyy-MM-dd",
            "projection.dt.range": f"{since},NOW+1DAYS",  # an order may be dated some minutes ahead
            "projection.dt.interval": "1",
            "projection.dt.interval.unit": "DAYS",
            **(hour if table.hourly else {}),
            "storage.location.template": f"{location}dt=${{dt}}/" + ("hour=${hour}/" if table.hourly else ""),
        },
    }


def _view(database: str) -> dict[str, Any]:
    """As Athena itself writes a view; AWS documents the fields, not the text in them."""
    orders = TABLES[0]
    columns = [*_columns(orders), *_partitions(orders)]
    presto = {
        "originalSql": sales_view(),
        "catalog": "awsdatacatalog",
        "schema": database,
        "columns": [{"name": c["Name"], "type": _PRESTO_OF_HIVE.get(c["Type"], c["Type"])} for c in columns],
    }
    text = base64.b64encode(json.dumps(presto).encode()).decode()
    return {
        "Name": "sales",
        "TableType": "VIRTUAL_VIEW",
        "PartitionKeys": [],
        "StorageDescriptor": {"Columns": columns, "Location": "", "SerdeInfo": {}},
        "Parameters": {"presto_view": "true", "comment": "Presto View"},
        "ViewOriginalText": f"/* Presto View: {text} */",
        "ViewExpandedText": "/* Presto View */",
    }


def _columns(table: Relation) -> list[dict[str, str]]:
    return [{"Name": field.name, "Type": _HIVE[field.type]} for field in table.schema]


def _partitions(table: Relation) -> list[dict[str, str]]:
    return [{"Name": name, "Type": _HIVE_PARTITION[kind]} for name, kind in table.partitions.items()]
