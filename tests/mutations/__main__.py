"""``python -m mutations``: every guard is taken away, one after the other, and its test has to fail. A line for each,
and exit code 1 if one is not missed. ``--only pin`` for those whose name, file or test has that in it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from mutations.document import document
from mutations.guards import GUARDS, Guard
from mutations.trial import GuardError, Verdict, run_tests, run_without
from tillstream import interrupts
from tillstream.local import aws as local_aws
from tillstream.local import dynamodb as local_dynamodb
from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery
from tillstream.local.server import ServerError

ALL_SECONDS = 1_800.0
"""All tests of the guards, with every guard in its place."""

FAILED, UNUSABLE = 1, 2


def main() -> int:
    """Runs; the exit code: 0 every guard is missed by its test, 1 one is not, 2 there was nothing to try, or no way."""
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only guards whose name, file or test has this")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--document", action="store_true", help="print docs/guards.md, and try nothing")
    given = parser.parse_args()
    if given.document:
        print(document(GUARDS), end="")  # noqa: T201 (the answer)
        return 0
    guards = [guard for guard in GUARDS if given.only in f"{guard.name} {guard.file} {guard.test}"]
    if not guards:
        _say(f"no guard's name, file or test has {given.only!r} in it")
        return UNUSABLE
    try:
        with interrupts.raised(), Nursery() as nursery:
            tried = _try(guards, nursery)
    except (ServerError, GuardError) as error:
        _say(str(error))
        return UNUSABLE
    except interrupts.Interrupted as interrupted:
        return interrupted.exit_code
    missed = sum(verdict.ending == "noticed" for _, verdict in tried)
    if given.json:
        outcomes = [asdict(guard) | asdict(verdict) for guard, verdict in tried]
        print(json.dumps({"guards": len(guards), "noticed": missed, "outcomes": outcomes}, indent=1))  # noqa: T201
    else:
        print("\n".join(table(tried)))  # noqa: T201 (the answer)
    return 0 if tried and missed == len(guards) else FAILED


def _try(guards: Sequence[Guard], nursery: Nursery) -> list[tuple[Guard, Verdict]]:
    began = time.monotonic()
    server = local_aws.start(nursery)
    environment = {**os.environ, **local_aws.environment(), "TEST_AWS_ENDPOINT_URL": server.address}
    if any(guard.part == "schedules" for guard in guards):
        environment["TEST_KAFKA_BOOTSTRAP_SERVERS"] = local_kafka.start(nursery).address
        environment["TEST_DYNAMODB_ENDPOINT_URL"] = local_dynamodb.start(nursery).address
    tests = list(dict.fromkeys(guard.test for guard in guards))
    _say(f"{len(tests)} tests with every guard in its place")
    code, output = run_tests(tests, environment, ALL_SECONDS)
    if code != 0:
        raise GuardError(f"a test fails with every guard in its place; see to it first:\n{output[-3000:]}")
    tried = []
    for number, guard in enumerate(guards, start=1):
        verdict = run_without(guard, environment)
        tried.append((guard, verdict))
        _say(f"{number:>3}/{len(guards)}  {verdict.ending:<9}  {guard.name}")
    _say(f"{len(tried)} guards, {time.monotonic() - began:.0f} s")
    return tried


def table(tried: Sequence[tuple[Guard, Verdict]]) -> list[str]:
    """Lines for people."""
    width = max(len(guard.name) for guard, _ in tried)
    return [f"{verdict.ending:<9}  {guard.name:<{width}}  {verdict.said[:100]}".rstrip() for guard, verdict in tried]


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
