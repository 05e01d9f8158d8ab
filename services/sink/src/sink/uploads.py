"""Objects in parts: what is too large for one request, and what a crash leaves of it.

The object is there, whole, when the upload is completed, and not before: so ``complete`` is what a PUT is to a small
object, with the same condition::

    begin ──▶ part 1 ──▶ part 2 ──▶ … ──▶ complete, if there is none
       └─────────┴──────────┴───────────────▶ abort, whatever fails

Parts of an upload that was neither completed nor aborted are paid for and seen by nobody.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from sales import aws_faults
from sales.events import Log
from sink import failpoints

log = Log(__name__)

PART_BYTES = 8 * 2**20
"""A part whose answer is lost is sent again alone. S3 wants 5 MiB at least, but of the last one, and takes 10,000."""

LEFTOVER_AGE = timedelta(hours=1)
"""Nobody works on an upload that was begun so long ago: each of its requests is bounded by a minute or two. A writer
that was frozen for longer finds its upload gone, and begins another."""


def create(client: Any, where: Mapping[str, str], body: bytes, metadata: Mapping[str, str]) -> None:
    """Creates an object in parts, one after the other; what fails is aborted, as far as the store answers.

    Args:
        client: boto3's, for ``s3``.
        where: ``Bucket`` and ``Key``.
        body: the whole object; at least a byte.
        metadata: the object's.

    Raises:
        ClientError, aws_faults.TRANSPORT_FAULTS: as the client does. 412: there is an object already, perhaps from the
            first try of the completing request. 404 (``NoSuchUpload``): the upload is gone, completed or aborted.
    """
    # CRC32 is what the client gives to parts by itself; S3 wants it announced, and told again at the end.
    begun = client.create_multipart_upload(**where, Metadata=dict(metadata), ChecksumAlgorithm="CRC32")
    upload = {**where, "UploadId": begun["UploadId"]}
    try:
        parts = [
            _part(client, upload, number, body[start : start + PART_BYTES])
            for number, start in enumerate(range(0, len(body), PART_BYTES), start=1)
        ]
        failpoints.passed("complete-before")
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        failpoints.passed("complete-after")
    except BaseException:
        _abort(client, upload)
        raise


def abort_leftovers(client: Any, bucket: str, prefix: str, now: datetime) -> int:
    """Aborts the uploads of keys with this prefix that were begun LEFTOVER_AGE ago; how many.

    Raises:
        ClientError, aws_faults.TRANSPORT_FAULTS: as the client does; some stores don't list uploads.
    """
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    listed: Iterable[dict[str, Any]] = (upload for page in pages for upload in page.get("Uploads", ()))
    # All are listed before the first is aborted: a page begins where the one before ended.
    old = [upload for upload in listed if now - upload["Initiated"] >= LEFTOVER_AGE]
    return sum(
        _abort(client, {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}) for upload in old
    )


def _part(client: Any, upload: Mapping[str, str], number: int, body: bytes) -> dict[str, Any]:
    """Sends a part; how the completing request names it."""
    answer = client.upload_part(**upload, PartNumber=number, Body=body)
    failpoints.passed("part-after")
    named = {name: answer[name] for name in ("ETag", "ChecksumCRC32") if name in answer}
    return {"PartNumber": number, **named}


def _abort(client: Any, upload: Mapping[str, str]) -> bool:
    """Whether it was there to abort. A store that does not answer is not waited for: what stays there is a leftover."""
    try:
        client.abort_multipart_upload(**upload)
    except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
        if not (isinstance(error, ClientError) and aws_faults.status(error) == 404):
            log.warning(
                "upload_left_behind",
                "an unfinished upload of {key} stays until it is cleaned up: {error}",
                key=upload["Key"],
                error=error,
            )
        return False
    return True
