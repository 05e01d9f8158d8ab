"""Every kind of fault that can meet the processor, each once; ``make chaos-processor`` is the same for hours.

A shop of its own: its broker and its Redis die too. The faults come one after the other, in the order of the list.
"""

import os
from collections.abc import Iterator

import pytest

from chaos import faults
from chaos.campaign import Campaign
from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PAUSE_SECONDS = 7.0
"""SIGSTOP: longer than Redis is waited for; a long run has the time for longer than everything is."""
KINDS = {kind.name: kind for kind in faults.kinds(PAUSE_SECONDS)}


@pytest.fixture(scope="module")
def campaign(nursery: Nursery) -> Iterator[Campaign]:
    if missing := local_kafka.missing():
        (pytest.fail if "kafka" in os.environ.get("TILLSTREAM_REQUIRE", "").split(",") else pytest.skip)(missing)
    with Campaign(nursery, seed=7, rate="200/s", pause_seconds=PAUSE_SECONDS) as campaign:
        yield campaign


@pytest.mark.parametrize("name", KINDS)
def test_after_the_fault_every_number_and_dead_letter_is_right(campaign: Campaign, name: str) -> None:
    if reason := faults.refusal(KINDS[name], campaign.world):
        pytest.skip(reason)
    outcomes = list(campaign.strike(KINDS[name]))
    assert outcomes
    assert [difference for outcome in outcomes for difference in outcome.differences] == []


def test_in_the_end_every_closed_minute_is_right_and_verify_agrees(campaign: Campaign, aws_endpoint: str) -> None:
    assert [difference for outcome in campaign.end(aws_endpoint) for difference in outcome.differences] == []
    assert campaign.judge.accepted > 1000
