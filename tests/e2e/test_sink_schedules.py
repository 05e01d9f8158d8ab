"""Some of the schedules of ``make chaos-sink``: sinks that are killed and frozen at each arrow of what they do."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.schedules import ARROWS, Life, Schedule, draw, run
from support.sinking import an_order

pytestmark = [pytest.mark.kafka, pytest.mark.dynamodb, pytest.mark.slow]

SEEDS = range(12)
AT_ONCE = 4

A_LIFE = Life(
    lane="archive",
    place="claimed",
    times=1,
    action="end",
    patience=20,
    kill=True,
    rotate_records=5,
    rotate_seconds=0.2,
    in_parts=False,
    poll_records=5,
)


@pytest.fixture
def place(
    kafka_bootstrap: str,
    aws_endpoint: str,
    dynamodb_endpoint: str,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """Where schedules run."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", aws_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_endpoint)
    return {"kafka_bootstrap_servers": kafka_bootstrap, "s3_bucket": s3_bucket}


def test_the_same_seed_is_the_same_schedule() -> None:
    assert draw(5) == draw(5) != draw(6)


def test_every_arrow_is_drawn() -> None:
    drawn = {(life.lane, life.place, life.action) for seed in range(300) for life in draw(seed).lives}
    assert drawn == {
        (lane, place, action) for lane, places in ARROWS.items() for place in places for action in ("end", "stop")
    }


def test_everything_is_stored_once(place: dict[str, str], tmp_path: Path) -> None:
    def run_one(seed: int) -> str:
        folder = tmp_path / str(seed)
        folder.mkdir()
        return run(draw(seed), place, folder).difference

    with ThreadPoolExecutor(AT_ONCE) as threads:
        differences = dict(zip(SEEDS, threads.map(run_one, SEEDS), strict=True))
    assert differences == dict.fromkeys(SEEDS, "")


SOME_IDS = 6


def come_again(count: int) -> tuple[bytes, ...]:
    """Orders of few ids, each time with other content."""
    return tuple(an_order(f"o-{number % SOME_IDS}", customer_id=number) for number in range(count))


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(replace(A_LIFE, place="pin-before", action="stop"), id="frozen before its pin"),
        pytest.param(replace(A_LIFE, place="object-after"), id="killed behind an object"),
        pytest.param(replace(A_LIFE, place="object-before"), id="killed before an object"),
        pytest.param(
            replace(A_LIFE, lane="index", place="items-before", times=2, action="stop"), id="frozen before items"
        ),
    ],
)
def test_the_judge_sees_what_a_missing_guard_does_to(life: Life, place: dict[str, str], tmp_path: Path) -> None:
    """Right as long as the guards are in their places; `make mutants` takes them away."""
    schedule = Schedule(0, (life,), together=False, one_group=False, batches=(come_again(60), come_again(60)))
    outcome = run(schedule, place, tmp_path)
    assert outcome.difference == ""
    assert [ending for _, ending in outcome.endings] == ["frozen" if life.action == "stop" else "ended"]
