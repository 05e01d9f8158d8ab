"""``python -m chaos.sinks``: so many schedules, a line for each; a table of where processes ended, and exit code 1 on
any difference. ``--first`` repeats one that was not right: ``--seed 1 --first 17 --schedules 1``."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import boto3

from chaos.schedules import Ending, Outcome, draw, run
from tillstream import interrupts
from tillstream.local import aws as local_aws
from tillstream.local import dynamodb as local_dynamodb
from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery
from tillstream.local.server import ServerError

BUCKET = "schedules"
SEEDS = 1_000_000
"""Schedules of a seed."""
A_FRESH_SERVER = 25
"""Schedules after which S3 is a new process: moto keeps everything in memory, and walks over it."""


def main() -> int:
    """Runs; the exit code."""
    parser = argparse.ArgumentParser(prog="chaos.sinks", description=__doc__)
    parser.add_argument("--schedules", type=int, default=300, help="how many (300)")
    parser.add_argument("--seed", type=int, default=1, help="decides what they are (1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    parser.add_argument("--at-once", type=int, default=4, help="schedules that run at one time (4)")
    parser.add_argument("--json", type=Path, help="where to write the outcomes")
    given = parser.parse_args()
    began, outcomes, broken = time.monotonic(), list[Outcome](), ""
    numbers = range(given.first, given.first + given.schedules)
    try:
        with interrupts.raised(), Nursery() as nursery:
            for outcome in _run(nursery, [given.seed * SEEDS + number for number in numbers], given.at_once):
                outcomes.append(outcome)
                lives = ", ".join(f"{place} {ending}" for place, ending in outcome.endings)
                number = outcome.seed - given.seed * SEEDS
                _say(f"{number:>5}  {outcome.seconds:5.1f} s  {lives}", *filter(None, [outcome.difference]))
    except ServerError as error:
        broken = str(error)
    except interrupts.Interrupted as interrupted:
        broken = f"ended by {interrupted}"
    print("\n".join(table(outcomes)))  # noqa: T201 (the answer)
    wrong = sum(bool(outcome.difference) for outcome in outcomes)
    seconds = time.monotonic() - began
    _say(broken or "done", f"{len(outcomes)} schedules, {wrong} not right, {seconds:.0f} s, seed {given.seed}")
    if given.json:
        document = {"seed": given.seed, "broken": broken, "outcomes": [asdict(outcome) for outcome in outcomes]}
        given.json.write_text(json.dumps(document, indent=1))
    return 1 if wrong or broken else 0


def _run(nursery: Nursery, seeds: Sequence[int], at_once: int) -> Iterator[Outcome]:
    os.environ.update(local_aws.environment())
    broker = local_kafka.start(nursery)
    os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = local_dynamodb.start(nursery).address
    for begin in range(0, len(seeds), A_FRESH_SERVER):
        server = local_aws.start(nursery)
        os.environ["AWS_ENDPOINT_URL_S3"] = server.address
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        settings = {"kafka_bootstrap_servers": broker.address, "s3_bucket": BUCKET}
        with ThreadPoolExecutor(at_once) as threads:
            running = [
                threads.submit(run, draw(seed), settings, nursery.folder(f"schedule-{seed}"))
                for seed in seeds[begin : begin + A_FRESH_SERVER]
            ]
            try:
                for future in as_completed(running):
                    yield future.result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)  # those that run come to their end first
        server.stop()


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines for people: each place with how often a process ended there, was frozen there, or did not come there."""
    counted = Counter(life for outcome in outcomes for life in outcome.endings)
    endings = get_args(Ending)
    rows = [["place", *endings]]
    rows += [[place, *(str(counted[place, ending]) for ending in endings)] for place in sorted({p for p, _ in counted})]
    return [f"{row[0]:<16}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows]


def _say(*lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
