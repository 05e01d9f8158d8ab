"""Which of Kinesis's faults mend themselves."""

from botocore.exceptions import ClientError

PASSING_CODES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "KMSThrottlingException",
        "InternalFailure",
        "InternalFailureException",
        "ServiceUnavailable",
        "RequestTimeout",
    }
)
"""Throttled or broken for the moment; the same request may succeed later."""


def code(fault: ClientError) -> str:
    """The service's name for a fault."""
    return str(fault.response.get("Error", {}).get("Code", ""))


def passing(fault: ClientError) -> bool:
    """Whether the service may answer better later: it is throttling or broken, not refusing."""
    status = fault.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or code(fault) in PASSING_CODES
