"""Which errors of AWS, or of what speaks its protocol, mend themselves: one list for Kinesis, S3 and DynamoDB."""

import botocore.exceptions
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

THROTTLED_CODES = frozenset(
    (
        "KMSThrottlingException LimitExceededException ProvisionedThroughputExceededException RequestLimitExceeded "
        "SlowDown ThrottledException Throttling ThrottlingException TooManyRequestsException"
    ).split()
)
"""They ask for less speed."""

PASSING_CODES = THROTTLED_CODES | frozenset(
    (
        "ConditionalRequestConflict ExpiredToken ExpiredTokenException InternalFailure InternalFailureException "
        "InternalServerError OperationAborted RequestExpired RequestTimeout RequestTimeTooSkewed ServiceUnavailable "
        "UnrecognizedClientException"
    ).split()
)
"""Codes below 500 that speak of the moment, not of the request. Credentials expire before they are renewed; and a
machine's clock may be off for a while."""

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


def code(error: ClientError) -> str:
    """AWS's name of the error: ``SlowDown``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: ClientError) -> int:
    """The answer's HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def passes(error: ClientError) -> bool:
    """Does this error mend itself? 501 does not: the far side lacks what was asked for."""
    return (status(error) >= 500 and status(error) != 501) or status(error) == 429 or code(error) in PASSING_CODES


def throttled(error: ClientError) -> bool:
    """Does this error ask for less speed?"""
    return status(error) == 429 or code(error) in THROTTLED_CODES
