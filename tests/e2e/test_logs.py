"""The whole chain under LOG_FORMAT=json: every line that a service writes from its start to its end is an event."""

import re
from typing import Any

import pytest

from support.json_lines import parsed
from support.services import OpenPipeline, Pipeline

WIRES = [pytest.param("kafka", marks=pytest.mark.kafka), "kinesis"]

SETTLE_SECONDS = 120.0
STOP_SECONDS = 60.0

LOAD = {"ORDERS": "400", "RATE": "400/s", "DUPLICATES": "0.1", "MALFORMED": "0.1", "LATE": "0.05"}


def logged(pipeline: Pipeline, service: str) -> list[dict[str, Any]]:
    return parsed((pipeline.folder / f"{service}.log").read_text().splitlines())


def events(told: list[dict[str, Any]]) -> set[str]:
    return {line["event"] for line in told}


@pytest.mark.parametrize("wire", WIRES)
def test_from_start_to_end_every_line_is_an_event(wire: str, open_pipeline: OpenPipeline) -> None:
    pipeline = open_pipeline(wire, LOG_FORMAT="json", ROTATE_SECONDS="2", AUDIT_SECONDS="1")
    for service in ("processor", "sink", "auditor"):
        pipeline.start(service)
    pipeline.start("generator", **LOAD)
    pipeline.finish("generator", SETTLE_SECONDS)
    pipeline.settle(SETTLE_SECONDS)
    pipeline.await_stored(pipeline.orders, SETTLE_SECONDS)
    compared = {b"equal", b"different", b"waiting"}
    pipeline.until(
        lambda: pipeline.redis.hget(pipeline.keys.audit, "outcome") in compared,
        SETTLE_SECONDS,
        "a round of the auditor's",
    )
    for service in ("auditor", "sink", "processor"):
        pipeline.stop(service)

    generator = logged(pipeline, "generator")
    assert events(generator) >= {"generator_running", "records_acknowledged"}
    assert generator[-1]["records"] > 400
    assert events(logged(pipeline, "processor")) >= {"redis_reached", "processor_running", "service_stopped"}
    assert events(logged(pipeline, "sink")) >= {"sink_running", "partition_read", "lane_progress", "service_stopped"}
    auditor = logged(pipeline, "auditor")
    assert events(auditor) >= {"auditor_running", "service_stopped"}
    assert events(auditor) & {"numbers_equal", "round_waits"}


def test_what_breaks_the_engine_is_an_event_after_the_engines_own_words(open_pipeline: OpenPipeline) -> None:
    pipeline = open_pipeline("kinesis", LOG_FORMAT="json")
    pipeline.start("processor", RUST_BACKTRACE="0")
    pipeline.start("generator", **LOAD)
    pipeline.finish("generator", SETTLE_SECONDS)
    pipeline.settle(SETTLE_SECONDS)
    pipeline.redis.set(pipeline.keys.epoch, 10**15)  # as another processor does that takes over
    assert pipeline.ended("processor", STOP_SECONDS) == 1
    lines = (pipeline.folder / "processor.log").read_text().splitlines()
    engine = [line for line in lines if line and not line.startswith("{")]
    assert re.fullmatch(r"thread '.*' panicked at src/outputs\.rs:\d+:\d+:", engine[0])
    assert engine[1] == "Box<dyn Any>"
    assert len(engine) <= 3
    last = parsed(line for line in lines if line.startswith("{"))[-1]
    assert (last["event"], last["exit_code"], last["error"]["type"]) == ("service_failed", 1, "FencedError")
