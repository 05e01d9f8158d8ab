"""First on the path of a process, this writes each AWS call that it makes to the file that AWS_CALLS names: a line of
JSON with the service, the operation and what the call was about."""

import json
import os
from pathlib import Path
from typing import Any

from botocore.client import BaseClient

ABOUT = ("Bucket", "Key", "Prefix", "StreamName", "StreamARN", "TableName", "IndexName", "DatabaseName", "Name")
_STREAMS: dict[str, str] = {}
call_unrecorded = BaseClient._make_api_call


def call(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
    about = {name: parameters[name] for name in ABOUT if name in parameters}
    if "RequestItems" in parameters:
        about["TableName"] = next(iter(parameters["RequestItems"]))
    if "Body" in parameters and operation == "BatchExecuteStatement":
        about["TableName"] = json.loads(parameters["Body"])["Statements"][0]["Statement"].split('"')[1]
    for name in ("DatabaseInput", "TableInput"):
        if name in parameters:
            about[name] = parameters[name]["Name"]
    if "ShardIterator" in parameters:  # it stands for a stream, and IAM asks for that one's rights
        about["StreamName"] = _STREAMS[parameters["ShardIterator"]]
    line = json.dumps({"service": client.meta.service_model.service_name, "operation": operation, **about})
    with Path(os.environ["AWS_CALLS"]).open("a") as file:
        file.write(line + "\n")
    answer = call_unrecorded(client, operation, parameters)
    for name in ("ShardIterator", "NextShardIterator"):
        if answer.get(name):
            _STREAMS[answer[name]] = about["StreamName"]
    return answer


if "AWS_CALLS" in os.environ:
    BaseClient._make_api_call = call
