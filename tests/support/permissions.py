"""What IAM makes of the policies in deploy/aws/iam, in the part of its language that they use: Allow, actions by
their names, resources with ``*``. No code of the services has a part in it."""

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "deploy" / "aws" / "iam"
REGION, ACCOUNT = "us-east-1", "123456789012"

# Where an action has another name than the call, after the Service Authorization Reference.
ACTIONS = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "dynamodb:BatchExecuteStatement": "dynamodb:PartiQLInsert",
}


@dataclass(frozen=True)
class Asked:
    """One action on one resource."""

    action: str
    resource: str


@dataclass(frozen=True)
class Allowed:
    """One action that a statement allows on one pattern of resources."""

    statement: str
    action: str
    pattern: str

    def covers(self, asked: Asked) -> bool:
        return self.action == asked.action and fnmatch.fnmatchcase(asked.resource, self.pattern)


def asked(call: Mapping[str, Any]) -> list[Asked]:
    """What IAM looks at for a call. Creating a Glue table asks for rights on catalog, database and table."""
    plain = f"{call['service']}:{call['operation']}"
    action = ACTIONS.get(plain, plain)
    return [Asked(action, resource) for resource in _resources(call)]


def _resources(call: Mapping[str, Any]) -> Iterator[str]:
    def arn(service: str, name: str) -> str:
        return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"

    if call["service"] == "s3":
        key = f"/{call['Key']}" if "Key" in call else ""
        yield f"arn:aws:s3:::{call['Bucket']}{key}"
    elif call["service"] == "dynamodb":
        index = f"/index/{call['IndexName']}" if "IndexName" in call else ""
        yield arn("dynamodb", f"table/{call['TableName']}{index}")
    elif call["service"] == "glue":
        database = call.get("DatabaseName") or call["DatabaseInput"]
        yield arn("glue", "catalog")
        yield arn("glue", f"database/{database}")
        table = call.get("Name") or call.get("TableInput")
        if table:
            yield arn("glue", f"table/{database}/{table}")
    elif "StreamARN" in call:
        yield call["StreamARN"]
    else:
        yield arn("kinesis", f"stream/{call['StreamName']}") if "StreamName" in call else "*"


def policy(name: str, places: Mapping[str, str]) -> list[Allowed]:
    """A file's statements, its placeholders filled in."""
    text = (FOLDER / f"{name}.json").read_text()
    for placeholder, value in places.items():
        text = text.replace(placeholder, value)
    statements = json.loads(text)["Statement"]
    assert all(each.keys() == {"Sid", "Effect", "Action", "Resource"} for each in statements)
    assert {each["Effect"] for each in statements} == {"Allow"}
    return [
        Allowed(each["Sid"], action, pattern)
        for each in statements
        for action in each["Action"]
        for pattern in each["Resource"]
    ]
