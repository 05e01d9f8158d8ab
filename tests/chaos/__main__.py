"""``python -m chaos``: so many faults, a line for each, and ``verify``; a table, and exit code 1 on any difference."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from chaos import faults
from chaos.campaign import END, Campaign, Outcome, table
from chaos.topics import TopicError
from chaos.world import NotInTimeError
from tillstream import interrupts
from tillstream.local import aws as local_aws
from tillstream.local.nursery import Nursery
from tillstream.local.server import ServerError
from tillstream.stored import NotCoveredError


def main() -> int:
    """Runs; the exit code."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, default=1, help="decides which come, and when (1)")
    parser.add_argument("--rate", default="500/s", help="of good orders (500/s)")
    parser.add_argument("--pause", type=float, default=70.0, help="seconds that SIGSTOP lasts (70)")
    parser.add_argument("--only", default="", help="kinds of faults, with commas; empty: all")
    parser.add_argument("--json", type=Path, help="where to write the outcomes")
    given = parser.parse_args()
    began, outcomes, broken = time.monotonic(), list[Outcome](), ""
    try:
        with interrupts.raised(), Nursery() as nursery:
            campaign = Campaign(nursery, seed=given.seed, rate=given.rate, pause_seconds=given.pause)
            with campaign:
                for outcome in _run(campaign, given.faults, given.only.split(",") if given.only else []):
                    outcomes.append(outcome)
                    _say(f"{outcome.number:>4}  {outcome.step:<40} {outcome.recovery:6.1f} s", *outcome.differences)
    except (NotInTimeError, TopicError, ServerError, NotCoveredError) as error:
        broken = str(error)
    except interrupts.Interrupted as interrupted:
        broken = f"ended by {interrupted}"
    if outcomes:
        print("\n".join(table(outcomes)))  # noqa: T201 (the answer)
    struck = len({outcome.number for outcome in outcomes if outcome.kind != END})
    wrong = sum(len(outcome.differences) for outcome in outcomes)
    _say(broken or "done", f"{struck} faults, {wrong} differences, {time.monotonic() - began:.0f} s, seed {given.seed}")
    if given.json:
        document = {"seed": given.seed, "rate": given.rate, "broken": broken, "outcomes": [asdict(o) for o in outcomes]}
        given.json.write_text(json.dumps(document, indent=1))
    return 1 if wrong or broken else 0


def _run(campaign: Campaign, count: int, only: list[str]) -> Iterator[Outcome]:
    for kind in campaign.kinds:
        if reason := faults.refusal(kind, campaign.world):
            _say(f"without {kind.name}: {reason}")
    by_name = {kind.name: kind for kind in campaign.kinds}
    for number in range(count):
        yield from campaign.strike(by_name[only[number % len(only)]] if only else campaign.draw())
    os.environ.update(local_aws.environment())
    yield from campaign.end(local_aws.start(campaign.world.nursery).address)


def _say(*lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
