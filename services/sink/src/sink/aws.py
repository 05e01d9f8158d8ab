"""Clients of AWS, or of what speaks its protocol; and which of their errors mend themselves."""

from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from sales.settings import AwsSettings

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
ATTEMPTS = 3
"""Of one request, inside botocore, with short pauses; what lasts longer is waited for by the lane, which keeps its
place in its group meanwhile."""

# Codes below 500 that speak of the moment, not of the request. Credentials expire before they are renewed; and a
# machine's clock may be off for a while.
_PASSING_CODES = frozenset(
    (
        "ConditionalRequestConflict ExpiredToken ExpiredTokenException InternalServerError LimitExceededException "
        "OperationAborted ProvisionedThroughputExceededException RequestExpired RequestLimitExceeded RequestTimeout "
        "RequestTimeTooSkewed ServiceUnavailable SlowDown ThrottledException Throttling ThrottlingException "
        "TooManyRequestsException UnrecognizedClientException"
    ).split()
)
_THROTTLED_CODES = frozenset(
    (
        "ProvisionedThroughputExceededException RequestLimitExceeded SlowDown ThrottledException Throttling "
        "ThrottlingException TooManyRequestsException"
    ).split()
)

TRANSPORT_FAULTS = (
    botocore.exceptions.ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
)
"""No answer, half an answer, or no credentials at the moment: whether the request was carried out is unknown."""


class AwayError(Exception):
    """The far side can't be reached or can't answer now; says what and where. Trying again later is right."""


def client(service: str, settings: AwsSettings, *, connections: int) -> Any:
    """A boto3 client (one may serve several threads) with bounded waits.

    Args:
        service: ``s3`` or ``dynamodb``.
        settings: region, and the address if it is not AWS itself.
        connections: requests at one time.
    """
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=connections,
        # A local store has one host name, not one for each bucket.
        s3={"addressing_style": "path" if settings.aws_endpoint_url else "auto"},
    )
    session = boto3.session.Session(region_name=settings.aws_region)
    return session.client(service, endpoint_url=settings.aws_endpoint_url, config=config)


def code(error: ClientError) -> str:
    """AWS's name of the error: ``SlowDown``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: ClientError) -> int:
    """The answer's HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def passes(error: ClientError) -> bool:
    """Does this error mend itself? 501 does not: the store lacks what was asked for."""
    return (status(error) >= 500 and status(error) != 501) or status(error) == 429 or code(error) in _PASSING_CODES


def throttled(error: ClientError) -> bool:
    """Does this error ask for less speed?"""
    return status(error) == 429 or code(error) in _THROTTLED_CODES
