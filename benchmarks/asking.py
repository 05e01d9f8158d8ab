"""How much sooner a question about one hour of a month is answered than one that reads the whole month.

    python -m benchmarks.asking

The question is the ten products with the most revenue. Both ways give the same answer; one says ``dt`` and ``hour``,
the other the same hour in words that skip nothing. Both times are from opening the tables, listing included, to the
answer; S3 is moto on this machine. The view ``sales`` is asked too: there the whole month has to be put side by side.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bucket import filled

from tillstream.catalogue import open_catalogue
from tillstream.database import Row
from tillstream.spans import Span

PRUNED = "dt = '2026-11-17' AND hour = 8"
WHOLE = "date_trunc('hour', event_time) = TIMESTAMP '2026-11-17 08:00:00'"
QUESTION = """
    SELECT product_id, sum(net_amount) AS revenue FROM {table} WHERE {where}
    GROUP BY product_id ORDER BY revenue DESC, product_id LIMIT 10
"""


def main() -> int:
    """Asks three times each way and prints the medians as JSON; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=20_000, help="of each hour; default %(default)s")
    parser.add_argument("--runs", type=int, default=3, help="of each question; default %(default)s")
    options = parser.parse_args()
    with filled(hours=720, lines=options.lines) as bucket, tempfile.TemporaryDirectory() as folder:

        def ask(table: str, where: str) -> tuple[float, list[Row]]:
            began = time.perf_counter()
            with open_catalogue(bucket.settings, Span(), Path(folder)) as catalogue:
                rows = catalogue.database.execute(QUESTION.format(table=table, where=where)).rows
            return time.perf_counter() - began, rows

        for table in ("orders", "sales"):
            load = os.getloadavg()[0]
            pruned = [ask(table, PRUNED) for _ in range(options.runs)]
            whole = [ask(table, WHOLE) for _ in range(options.runs)]
            answers = {str(rows) for _, rows in (*pruned, *whole)}
            quick, slow = (sorted(seconds for seconds, _ in asked)[options.runs // 2] for asked in (pruned, whole))
            print(
                json.dumps(
                    {
                        "asked": table,
                        "lines": bucket.lines,
                        "objects": bucket.hours,
                        "pruned_seconds": round(quick, 3),
                        "whole_seconds": round(slow, 3),
                        "times": round(slow / quick, 1),
                        "load_before": load,
                    }
                ),
                flush=True,
            )
            if len(answers) != 1 or not pruned[0][1]:
                sys.stderr.write(f"the answers differ: {answers}\n")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
