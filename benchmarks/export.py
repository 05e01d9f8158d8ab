"""How many order lines a second go from S3 into one file, and what memory that takes.

    python -m benchmarks.export --lines 10000000

`tillstream export` runs as its users run it, against moto on this machine, which needs a share of the same cores. One
order in a thousand is stored twice. The file is read again: its lines and their sum must be those that were stored.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from benchmarks.bucket import filled

LINES_PER_HOUR = 250_000
"""One row group."""


def main() -> int:
    """Runs it once in each format and prints a line of JSON for each; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000_000, help="default %(default)s")
    options = parser.parse_args()
    hours = max(1, options.lines // LINES_PER_HOUR)
    with filled(hours=hours, lines=LINES_PER_HOUR) as bucket, tempfile.TemporaryDirectory() as folder:
        for form in ("csv", "parquet"):
            path = Path(folder) / f"out.{form}"
            load = os.getloadavg()[0]
            began = time.perf_counter()
            child = subprocess.Popen(
                [sys.executable, "-m", "tillstream", "export", "--format", form, "--output", str(path)],
                stdout=subprocess.DEVNULL,
            )
            peak = _peak_kb(child.pid)
            _, status, used = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - began
            child.returncode = os.waitstatus_to_exitcode(status)
            cpu = used.ru_utime + used.ru_stime
            # Money is compared as integers: a sum of floats would not be to the cent.
            source = f"read_csv('{path}', types = {{net: 'DECIMAL(18, 2)'}})" if form == "csv" else f"'{path}'"
            found = duckdb.sql(f"SELECT count(*), CAST(sum(net) * 100 AS BIGINT) FROM {source}").fetchone()  # noqa: S608 (our own file)
            print(
                json.dumps(
                    {
                        "format": form,
                        "lines": bucket.lines,
                        "lines_per_second": round(bucket.lines / seconds),
                        "lines_per_cpu_second": round(bucket.lines / cpu),
                        "seconds": round(seconds, 1),
                        "peak_mb": peak // 1024,
                        "file_mb": path.stat().st_size // 1_000_000,
                        "stored_mb": bucket.stored_bytes // 1_000_000,
                        "load_before": load,
                    }
                ),
                flush=True,
            )
            if child.returncode or found != (bucket.lines, bucket.net):
                sys.stderr.write(f"export: exit {child.returncode}, {found} is not {(bucket.lines, bucket.net)}\n")
                return 1
            path.unlink()
    return 0


def _peak_kb(process: int) -> int:
    """The largest resident set of a child, once it has ended. What wait4 says of it begins with the size of the process
    that it was forked from, which is this one."""
    peak = 0
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        status = Path(f"/proc/{process}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        peak = max(peak, int(found[1]) if found else 0)
        time.sleep(0.05)
    return peak


if __name__ == "__main__":
    sys.exit(main())
