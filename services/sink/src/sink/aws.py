"""Clients of AWS, or of what speaks its protocol."""

from typing import Any

import boto3
from botocore.config import Config

from sales.settings import AwsService, AwsSettings

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
ATTEMPTS = 3
"""Of one request, inside botocore, with short pauses; what lasts longer is waited for by the lane, which keeps its
place in its group meanwhile."""


def client(
    service: AwsService,
    settings: AwsSettings,
    *,
    connections: int,
    answer_seconds: float = READ_TIMEOUT_SECONDS,
    attempts: int = ATTEMPTS,
) -> Any:
    """A boto3 client (one may serve several threads) with bounded waits.

    Args:
        service: which.
        settings: region, and the service's address if it is not AWS itself.
        connections: requests at one time.
        answer_seconds: how long one try waits for its answer.
        attempts: tries of one request.
    """
    endpoint = settings.endpoint(service)
    config = Config(
        connect_timeout=min(CONNECT_TIMEOUT_SECONDS, answer_seconds),
        read_timeout=answer_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        # A local store has one host name, not one for each bucket.
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    session = boto3.session.Session(region_name=settings.aws_region)
    return session.client(service, endpoint_url=endpoint, config=config)


def dynamodb(settings: AwsSettings, *, connections: int) -> Any:
    """A client whose ``batch_execute_statement(Body=...)`` takes the whole request as JSON bytes.

    boto3 checks and copies each attribute of each item in Python, which costs more than all the rest of a request; here
    a faster encoder has been before. What else boto3 does stays: endpoints, signing, retries, the answer.
    """
    made = client("dynamodb", settings, connections=connections)
    events = made.meta.events
    events.register("before-parameter-build.dynamodb.BatchExecuteStatement", _set_body_aside)
    events.register("before-call.dynamodb.BatchExecuteStatement", _put_body_in)
    return made


def _set_body_aside(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    context["tillstream_body"] = params.pop("Body")
    params["Statements"] = [{"Statement": "in the body"}]  # what boto3 checks and encodes instead


def _put_body_in(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    params["body"] = context["tillstream_body"]
