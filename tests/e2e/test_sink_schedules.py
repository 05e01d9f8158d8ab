"""A dozen of the schedules of ``make chaos-sink``: sinks that are killed and frozen at each arrow of what they do."""

from pathlib import Path

import pytest

from chaos.schedules import ARROWS, draw, run

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEEDS = range(12)


def test_the_same_seed_is_the_same_schedule() -> None:
    assert draw(5) == draw(5) != draw(6)


def test_every_arrow_is_drawn() -> None:
    drawn = {(life.lane, life.place, life.action) for seed in range(300) for life in draw(seed).lives}
    assert drawn == {
        (lane, place, action) for lane, places in ARROWS.items() for place in places for action in ("end", "stop")
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_is_stored_once(
    seed: int, kafka_bootstrap: str, aws_endpoint: str, s3_bucket: str, tmp_path: Path
) -> None:
    settings = {
        "kafka_bootstrap_servers": kafka_bootstrap,
        "aws_endpoint_url": aws_endpoint,
        "s3_bucket": s3_bucket,
    }
    assert run(draw(seed), settings, tmp_path).difference == ""
