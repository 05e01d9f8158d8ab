"""What the auditor is told by its environment."""

from typing import Annotated

from pydantic import Field

from tillstream.watch import WatchSettings


class AuditorSettings(WatchSettings):
    """What is verified and how often, and where metrics are served."""

    metrics_host: str = "127.0.0.1"
    """where ``/metrics``, ``/live`` and ``/ready`` are served"""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """their port; 0: they are not served"""
