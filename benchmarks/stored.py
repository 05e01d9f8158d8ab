"""What a topic's orders are as rows in a bucket: worked out from the topic by the oracle, and counted in the objects.

Both sides are one row a line with the same columns, and are compared by counts, sums, and a fingerprint of all rows:
the sum of each row's hash, which a row that is missing, doubled or changed makes another.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
from benchmarks import oracle
from benchmarks.lab import BenchmarkError, Lab
from benchmarks.topics import Loaded

DOWNLOADS = 2
"""At one time; the store serves from one core."""

BUSINESS = (
    "order_id event_ms is_return country customer_id original_order_id line product_id product_name category quantity "
    "unit_amount discount_percent unit_cost gross net profit"
).split()
"""What the order says, and what follows from it."""
PLACES = "partition position order_id line hour".split()
"""Where the message was, and the hour (since 1970) of the folder that the row is in."""

_EXPECTED = """
    SELECT
        o.*, l.* EXCLUDE (event, quantity), o.event_ms // 3600000 AS hour,
        if(o.is_return, -1, 1) AS sign,
        sign * l.quantity AS quantity, sign * l.quantity * l.unit_amount AS gross,
        sign * (l.quantity * l.unit_amount - (l.quantity * l.unit_amount * l.discount_percent + 50) // 100) AS net,
        net - sign * l.quantity * l.unit_cost AS profit
    FROM read_parquet('{folder}/orders.parquet') AS o JOIN read_parquet('{folder}/lines.parquet') AS l USING (event)
"""

ARCHIVE = """
    SELECT
        partition::BIGINT AS partition, position::BIGINT AS position, order_id, epoch_ms(event_time) AS event_ms,
        type = 'return' AS is_return, country, customer_id, original_order_id, line::BIGINT AS line, product_id,
        product_name, category, quantity, unit_amount, discount_percent::BIGINT AS discount_percent, unit_cost,
        gross_amount AS gross, net_amount AS net, profit_amount AS profit,
        epoch_ms(dt::TIMESTAMP) // 3600000 + hour::BIGINT AS hour
    FROM read_parquet(
        '{folder}/orders/**/*.parquet', hive_partitioning = true, hive_types = {{'dt': DATE, 'hour': BIGINT}}
    )
"""
"""The rows of the sink's objects, by their contract."""

_TOTALS = """
    SELECT
        count(*) AS lines,
        count(DISTINCT hash(order_id, event_ms)) AS identities,
        coalesce(sum(quantity), 0)::BIGINT AS quantity,
        coalesce(sum(gross), 0)::BIGINT AS gross,
        coalesce(sum(net), 0)::BIGINT AS net,
        coalesce(sum(profit), 0)::BIGINT AS profit,
        coalesce(sum(hash({business})::HUGEINT), 0)::VARCHAR AS business,
        {places} AS places
    FROM ({rows})
"""


@dataclass(frozen=True, slots=True)
class Totals:
    """What is compared; amounts in minor units, returns negative."""

    lines: int
    identities: int
    quantity: int
    gross: int
    net: int
    profit: int
    business: str
    """fingerprint of the rows' BUSINESS columns"""
    places: str | None
    """fingerprint of the rows' PLACES; None where they are not stored"""


@dataclass(frozen=True, slots=True)
class Right:
    """What has to be stored of a topic."""

    totals: Totals
    malformed: int
    """messages that break the contract, and are no rows"""


def right(lab: Lab, loaded: Loaded) -> Right:
    """The answer for this topic, kept from an earlier run or worked out now; says how far it is.

    Raises:
        BenchmarkError: the topic does not give what was loaded.
    """
    texts = b"".join(Path(file).read_bytes() for file in (__file__, oracle.__file__))
    rules = hashlib.sha256(texts + duckdb.__version__.encode()).hexdigest()[:8]  # its hash may be another's
    kept = lab.folder / f"{loaded.stream_id}.stored-{rules}.json"
    if kept.exists():
        known = json.loads(kept.read_text())
        return Right(Totals(**known["totals"]), known["malformed"])
    folder = lab.scratch("stored")
    malformed = oracle.to_parquet(lab.broker.address, loaded, folder)
    found = Right(totals(_EXPECTED, folder, with_places=True), malformed)
    kept.write_text(json.dumps(asdict(found)))
    return found


def totals(rows: str, folder: Path, *, with_places: bool) -> Totals:
    """Of the rows that a query gives, in which ``{folder}`` stands for the folder."""
    places = f"coalesce(sum(hash({', '.join(PLACES)})::HUGEINT), 0)::VARCHAR" if with_places else "NULL"
    question = _TOTALS.format(business=", ".join(BUSINESS), places=places, rows=rows.format(folder=folder))
    with duckdb.connect() as database:
        database.execute("SET memory_limit = ?", [oracle.MEMORY])
        database.execute("SET temp_directory = ?", [str(folder / "spill")])
        [values] = database.execute(question).fetchall()
    return Totals(*values)


def download(client: Any, bucket: str, prefix: str, folder: Path) -> Mapping[str, int]:
    """All objects below a prefix, as files with their keys as paths; the size of each, by key.

    Args:
        client: boto3's, for ``s3``; threads may share it.
        bucket: its name.
        prefix: of the keys.
        folder: where to; must exist.
    """
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    sizes = {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}

    def fetch(key: str) -> None:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())

    with ThreadPoolExecutor(DOWNLOADS) as threads:
        list(threads.map(fetch, sizes))
    return sizes


def compare(expected: Totals, found: Totals, who: str) -> None:
    """Compares all that was found.

    Raises:
        BenchmarkError: something differs; with every difference.
    """
    pairs = {name: (value, asdict(found)[name]) for name, value in asdict(expected).items()}
    wrong = [
        f"{name}: {mine} expected, {theirs} found"
        for name, (mine, theirs) in pairs.items()
        if mine != theirs and theirs is not None
    ]
    if wrong:
        raise BenchmarkError("\n  ".join([f"{who} did not store what the topic holds:", *wrong]))
    sys.stderr.write(f"{who}: {found.lines:,} lines of {found.identities:,} orders, equal to the topic's\n")
