"""Clients of AWS, or of what speaks its protocol."""

from typing import Any

import boto3
from botocore.config import Config

from sales.settings import AwsSettings

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
ATTEMPTS = 3
"""Of one request, inside botocore, with short pauses; what lasts longer is waited for by the lane, which keeps its
place in its group meanwhile."""


def client(
    service: str,
    settings: AwsSettings,
    *,
    connections: int,
    answer_seconds: float = READ_TIMEOUT_SECONDS,
    attempts: int = ATTEMPTS,
) -> Any:
    """A boto3 client (one may serve several threads) with bounded waits.

    Args:
        service: ``s3`` or ``dynamodb``.
        settings: region, and the address if it is not AWS itself.
        connections: requests at one time.
        answer_seconds: how long one try waits for its answer.
        attempts: tries of one request.
    """
    config = Config(
        connect_timeout=min(CONNECT_TIMEOUT_SECONDS, answer_seconds),
        read_timeout=answer_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        # A local store has one host name, not one for each bucket.
        s3={"addressing_style": "path" if settings.aws_endpoint_url else "auto"},
    )
    session = boto3.session.Session(region_name=settings.aws_region)
    return session.client(service, endpoint_url=settings.aws_endpoint_url, config=config)
