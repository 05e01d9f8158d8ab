"""How much sooner a question about one hour of a month is answered than one that reads the whole month.

    python -m benchmarks.asking

The question is the ten products with the most revenue. *whole* names the hour in words that skip nothing, *pruned* by
``dt`` and ``hour``, and *span* chooses it by ``--from`` and ``--to``. All give the same answer; times are medians, from
making the client of S3 and listing to the answer; imports are not in them. S3 is moto on this machine.
"""

import argparse
import json
import os
import statistics
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
HOUR = Span.of("2026-11-17T08:00", "2026-11-17T09:00")
QUESTION = """
    SELECT product_id, sum(net_amount) AS revenue FROM orders WHERE {where}
    GROUP BY product_id ORDER BY revenue DESC, product_id LIMIT 10
"""


def main() -> int:
    """Asks some times each way and prints the medians as JSON; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=20_000, help="of each hour; default %(default)s")
    parser.add_argument("--runs", type=int, default=3, help="of each question; default %(default)s")
    options = parser.parse_args()
    with filled(hours=720, lines=options.lines) as bucket, tempfile.TemporaryDirectory() as folder:

        def ask(where: str, span: Span) -> tuple[float, float, list[Row]]:
            began, busy = time.perf_counter(), time.process_time()
            question = QUESTION.format(where=where)
            with open_catalogue(bucket.settings, span, Path(folder), question=question) as catalogue:
                rows = catalogue.database.execute(question).rows
            return time.perf_counter() - began, time.process_time() - busy, rows

        load = os.getloadavg()[0]
        ways = {"whole": (WHOLE, Span()), "pruned": (PRUNED, Span()), "span": (PRUNED, HOUR)}
        asked = {name: [ask(*way) for _ in range(options.runs)] for name, way in ways.items()}
        seconds = {name: statistics.median(took for took, _, _ in runs) for name, runs in asked.items()}
        cpu = {name: statistics.median(used for _, used, _ in runs) for name, runs in asked.items()}
        print(
            json.dumps(
                {
                    "lines": bucket.lines,
                    "objects": bucket.hours,
                    "seconds": {name: round(took, 3) for name, took in seconds.items()},
                    "times": {name: round(seconds["whole"] / took, 1) for name, took in seconds.items()},
                    "cpu_seconds": {name: round(used, 3) for name, used in cpu.items()},
                    "cpu_times": {name: round(cpu["whole"] / used, 1) for name, used in cpu.items()},
                    "load_before": load,
                }
            )
        )
    answers = {str(rows) for runs in asked.values() for _, _, rows in runs}
    if len(answers) != 1 or answers == {"[]"}:
        sys.stderr.write(f"the answers differ: {answers}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
