"""Order lines to one CSV or Parquet file, in the columns of the contract; memory does not grow with their number."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import duckdb

from sales.memory import give_back
from sales.money import exponent
from sink.relations import PLACE, TABLES
from tillstream.catalogue import Catalogue, files
from tillstream.database import Database
from tillstream.reading import Progress
from tillstream.scanned import ScannedOrders
from tillstream.spans import Span

Format = Literal["csv", "parquet"]

MEMORY = "512MB"
"""What DuckDB may hold at once; what is beyond goes to disk."""

BATCH_BYTES = 32 * 1024 * 1024
"""Objects that are looked through together for repetitions: enough for every core, with some millions of identities."""

PROGRESS_SECONDS = 0.2
"""Between two looks at how far the writing is."""

_FORMULA = "'=', '+', '-', '@', chr(9), chr(10), chr(13)"
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection)."""

_ORDERS = TABLES[0]


def export_stored(catalogue: Catalogue, span: Span, path: Path, form: Format, currency: str, tell: Progress) -> int:
    """Each order that S3 holds in the span once, as the rows of its lowest position; a CSV's oldest hour first.

    The view ``sales`` would hold a window over all of it. Repetitions are few: they are looked for first, some hours at
    a time, as an order comes again within its hour, and left out of one pass over everything.

    Args:
        catalogue: opened for the span.
        span: of event time.
        path: to be written; a device or a pipe will do.
        form: which kind of file.
        currency: of all amounts.
        tell: hears of the progress.

    Returns:
        How many lines were written.

    Raises:
        duckdb.Error, OSError: the file can't be written, or an object not be read.
        StoredError: an object is not what the sink writes.
    """
    database, objects = catalogue.database, catalogue.objects
    database.execute("CREATE TABLE repeated (filename VARCHAR, file_row_number BIGINT)")
    batches = objects.batches(_ORDERS.folder, BATCH_BYTES)
    for done, folders in enumerate(batches):
        tell("looking for repetitions", done / len(batches))
        database.execute(_repeated(files(_ORDERS, folders)))
    give_back()
    if form == "csv":
        try:
            from tillstream.csv_file import write_csv  # noqa: PLC0415 (numba takes half a second, and 60 MB)
        except ImportError:  # it has no wheel for this machine
            pass
        else:
            return write_csv(catalogue, span, path, exponent(currency), tell)
    lines = f"{files(_ORDERS)} ANTI JOIN repeated USING (filename, file_row_number)" if batches else "orders"
    return _write(database, lines, span, path, form, currency, tell, database.progress)


def export_scanned(
    database: Database, orders: ScannedOrders, span: Span, path: Path, form: Format, currency: str, tell: Progress
) -> int:
    """The lines that DynamoDB holds: of each order id the event at the lowest position.

    Args:
        database: does the writing.
        orders: of the span.
        span: of event time.
        path: to be written; a device or a pipe will do.
        form: which kind of file.
        currency: of all amounts.
        tell: hears of the progress.

    Returns:
        How many lines were written.

    Raises:
        duckdb.Error, OSError: the file can't be written.
        botocore.exceptions.BotoCoreError, ClientError: DynamoDB stays away or refuses.
    """
    database.register("scanned", orders.lines())
    try:
        return _write(database, "scanned", span, path, form, currency, tell, orders.share)
    except duckdb.Error:
        if orders.fault is not None:
            raise orders.fault from None
        raise


def _write(
    database: Database,
    lines: str,
    span: Span,
    path: Path,
    form: Format,
    currency: str,
    tell: Progress,
    share: Callable[[], float],
) -> int:
    """Writes lines, given as what SQL selects from; ``share`` says how much of them is read."""
    options = "FORMAT csv, HEADER" if form == "csv" else "FORMAT parquet, COMPRESSION zstd"
    select = _select(lines, span, form, exponent(currency))
    target = str(path).replace("'", "''")
    with _watched(share, tell):
        [(count,)] = database.execute(f"COPY ({select}) TO '{target}' ({options}, USE_TMP_FILE false)").rows
    return int(count)


def _repeated(hours: str) -> str:
    """Notes the rows of some hours whose order stands at a lower position too.

    Identities are counted by their hashes, 8 bytes each; only of those that two orders share, by chance or not, more
    than that is read.
    """
    return f"""
        INSERT INTO repeated
        WITH shared AS (
            SELECT hash(order_id, event_time) AS identity FROM {hours}
            WHERE line = 1 GROUP BY ALL HAVING count(*) > 1
        ),
        placed AS (
            SELECT filename, file_row_number, {PLACE} AS place,
                min({PLACE}) OVER (PARTITION BY order_id, event_time) AS first_place
            FROM {hours}
            WHERE hash(order_id, event_time) IN (SELECT identity FROM shared)
        )
        SELECT filename, file_row_number FROM placed WHERE place <> first_place
    """  # noqa: S608 (names of our own)


def _select(lines: str, span: Span, form: Format, digits: int) -> str:
    """The columns of the contract. In a CSV a cell of text is made harmless and a date is one of people's; a Parquet
    file has values as they are."""

    def text(name: str) -> str:
        cell = f"CASE WHEN {name}[1] IN ({_FORMULA}) THEN '''' || {name} ELSE {name} END" if form == "csv" else name
        return f"{cell} AS {name}"

    def amount(name: str, called: str) -> str:
        # Exact, where a division would make floats. No amount of an order is beyond 10¹², and the product of 14 digits
        # and more with up to 4 fits into a word of 64 bits.
        minor = f"CAST({name} AS DECIMAL({17 - digits}, 0))"
        unit = f"CAST({10**-digits:.{digits}f} AS DECIMAL({digits + 1}, {digits}))"
        return f"{minor} * {unit} AS {called}"

    date = "strftime(event_time, '%d/%m/%Y')" if form == "csv" else "CAST(event_time AS DATE)"
    columns = [
        text("order_id"),
        text("category"),
        "customer_id",
        f"{date} AS order_date",
        text("product_id"),
        text("product_name"),
        "discount_percent AS discount",
        amount("gross_amount", "sales"),
        amount("profit_amount", "profit"),
        text("country"),
        text("region"),
        "quantity",
        amount("net_amount", "net"),
        text("currency"),
        "line",
    ]
    times = span.texts
    return (
        f"SELECT {', '.join(columns)} FROM {lines} "  # noqa: S608 (names of our own)
        f"WHERE event_time >= TIMESTAMP '{times['since']}' AND event_time < TIMESTAMP '{times['until']}'"
    )


@contextlib.contextmanager
def _watched(share: Callable[[], float], tell: Progress) -> Iterator[None]:
    """Inside, a thread tells how far the writing is."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(PROGRESS_SECONDS):
            tell("writing", share())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
