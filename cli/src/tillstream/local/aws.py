"""The AWS protocol (Kinesis, S3, DynamoDB) from one process: moto's server.

Run as a module it is that process. Some things of moto are mended there, all found in 5.2.5: Kinesis records are put
and read by threads at once without a lock, and each put and each read walks over every record of the shard; DynamoDB
walks over tables that another thread is writing, and answers 500, as it does to a PartiQL INSERT with parameters; S3
looks whether a condition holds and writes afterwards, so several writers can win.
"""

import logging
import os
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tillstream.local.nursery import Child, Nursery
from tillstream.local.server import LOOPBACK, Server, ServerError, inherited
from tillstream.local.server import start as start_server

START_SECONDS = 60.0
"""moto imports for seconds; a slow disk makes it many."""

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""moto accepts any; boto3 insists on some."""


def environment() -> dict[str, str]:
    """What clients of the server need, beside its address: any credentials, and nobody asking the network for others or
    sending loopback requests to a proxy."""
    past_proxies = {name: ",".join(filter(None, (os.environ.get(name), LOOPBACK))) for name in ("NO_PROXY", "no_proxy")}
    return {**CREDENTIALS, **past_proxies, "AWS_EC2_METADATA_DISABLED": "true"}


def start(nursery: Nursery) -> Server:
    """An empty server on a free loopback port that keeps nothing on disk; its address is an ``http://`` URL.

    Raises:
        ServerError: moto is not installed, or does not start.
    """
    try:
        from moto import __version__  # noqa: PLC0415 (an extra: tillstream[local])
    except ImportError as error:
        raise ServerError("moto is not installed: pip install 'tillstream[local]'") from error
    return start_server(
        nursery,
        f"moto {__version__}",
        command=lambda ports, _: [sys.executable, "-m", "tillstream.local.aws", str(ports[0])],
        address=lambda port: f"http://{LOOPBACK}:{port}",
        answers=_answers,
        seconds=START_SECONDS,
        env=inherited(**CREDENTIALS),
    )


def _answers(url: str, child: Child) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy can't reach our loopback
    try:
        with direct.open(f"{url}/moto-api/", timeout=2) as answer:
            return bool(answer.status == 200 and answer.headers["Server"] == _signature(child.pid))
    except (urllib.error.URLError, OSError):
        return False


def _signature(pid: int) -> str:
    """How one server's process names itself in each answer."""
    return f"moto/{pid}"


def _mend_kinesis() -> None:
    from moto.kinesis.models import Shard  # noqa: PLC0415 (only in the server's own process)

    lock = threading.Lock()
    put_unlocked = Shard.put_record

    def put_record(shard: Any, partition_key: str, data: str, explicit_hash_key: str) -> str:
        with lock:
            return str(put_unlocked(shard, partition_key, data, explicit_hash_key))

    def get_records(shard: Any, last_sequence_id: str, limit: int | None) -> tuple[list[Any], int, int]:
        # moto numbers a shard's records 1, 2, 3, ... and never drops one.
        with lock:
            last, newest = int(last_sequence_id), shard.get_max_sequence_number()
            end = newest if limit is None else min(newest, last + limit)
            found = [shard.records[number] for number in range(last + 1, end + 1)]
            if not found:
                return [], last, 0
            behind = shard.records[newest].created_at - found[-1].created_at
            return found, end, int(behind * 1000)

    mended = {
        "put_record": put_record,
        "get_records": get_records,
        "get_min_sequence_number": lambda shard: next(iter(shard.records), 0),
        "get_max_sequence_number": lambda shard: next(reversed(shard.records), 0),
    }
    for name, method in mended.items():
        setattr(Shard, name, method)


_INSERT = re.compile(r"""INSERT INTO "([^"]+)" VALUE \{((?:'[^']+': \?(?:, )?)+)\}""")


def _mend_dynamodb() -> None:
    from moto.dynamodb.exceptions import ConditionalCheckFailed  # noqa: PLC0415 (only in the server's own process)
    from moto.dynamodb.models import DynamoDBBackend  # noqa: PLC0415 (as above)
    from moto.dynamodb.responses import DynamoHandler  # noqa: PLC0415 (as above)

    execute_any = DynamoDBBackend.batch_execute_statement

    def batch_execute_statement(backend: Any, statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = [_INSERT.fullmatch(statement["Statement"]) for statement in statements]
        if not all(found):
            return list(execute_any(backend, statements))
        return [
            insert(backend, match[1], re.findall("'([^']+)'", match[2]), statement["Parameters"])
            for match, statement in zip(found, statements, strict=True)
            if match is not None
        ]

    def insert(backend: Any, table: str, names: list[str], values: list[Any]) -> dict[str, Any]:
        item = dict(zip(names, values, strict=True))
        absent = f"attribute_not_exists({backend.get_table(table).hash_key_attr})"
        try:
            backend.put_item(table, item, condition_expression=absent)
        except ConditionalCheckFailed:
            return {"TableName": table, "Error": {"Code": "DuplicateItem", "Message": "the key is there"}}
        return {"TableName": table}

    setattr(DynamoDBBackend, "batch_execute_statement", batch_execute_statement)  # noqa: B010 (as below)
    lock = threading.Lock()
    call_unlocked = DynamoHandler.call_action

    def call_action(handler: Any) -> Any:
        with lock:
            return call_unlocked(handler)

    setattr(DynamoHandler, "call_action", call_action)  # noqa: B010 (mypy takes no assignment to a method)


def _mend_s3() -> None:
    from moto.s3.responses import S3Response  # noqa: PLC0415 (only in the server's own process)

    lock = threading.Lock()

    def locked(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return method(*args, **kwargs)

        return call

    for name in ("_key_response_put", "_key_response_post"):
        setattr(S3Response, name, locked(getattr(S3Response, name)))


def main() -> None:
    """Serves on the given port until it is killed."""
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415 (as above)
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server  # noqa: PLC0415 (as above)

    class Handler(MotoRequestHandler):
        def version_string(self) -> str:
            return _signature(os.getpid())

    _mend_kinesis()
    _mend_dynamodb()
    _mend_s3()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request would fill the disk
    server = make_server(
        LOOPBACK,
        int(sys.argv[1]),
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        request_handler=Handler,
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
