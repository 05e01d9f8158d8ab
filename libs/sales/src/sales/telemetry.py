"""Metrics and health over HTTP: ``/metrics`` for Prometheus, ``/live`` and ``/ready`` for whoever restarts and routes.

``/live`` answers 200 while the service works or waits in order: when it says 503, only a restart helps. ``/ready``
answers 200 while what the service gives is fresh. Both say in a line why not.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sales.container_memory import container_memory
from sales.events import Log

log = Log(__name__)

CLOSE_SECONDS = 2.0
REQUEST_SECONDS = 10.0
"""How long a client may take to say what it wants."""


@dataclass(frozen=True, slots=True)
class Health:
    """Two questions; an answer is None, or what is wrong. Asked from threads of the server."""

    live: Callable[[], str | None]
    ready: Callable[[], str | None]


@contextmanager
def served(host: str, port: int, registry: CollectorRegistry, health: Health) -> Iterator[int]:
    """Serves until the block ends, in threads of its own; gives the port (any free one for 0). Beside what is in the
    registry it tells what the process takes: processor time, memory and its limit, open files, when it began.

    Raises:
        OSError: the address can't be used.
    """
    application = _application(registry, health)
    try:
        server = make_server(host, port, application, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise OSError(f"metrics can't be served at {host}:{port} (METRICS_HOST, METRICS_PORT): {error}") from error
    resources: list[Collector] = [ProcessCollector(registry=None), _Memory()]
    for collector in resources:
        registry.register(collector)
    thread = threading.Thread(target=server.serve_forever, name="telemetry", daemon=True)
    thread.start()
    log.info(
        "metrics_served",
        "metrics and health at http://{host}:{port}: /metrics /live /ready",
        host=host,
        port=server.server_port,
    )
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(CLOSE_SECONDS)
        for collector in resources:
            registry.unregister(collector)


class _Memory(Collector):
    """As the alarm has to know it; without a limit it tells nothing."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        memory = container_memory()
        used = GaugeMetricFamily("tillstream_memory_used_bytes", "Memory that the service's container has.")
        limit = GaugeMetricFamily("tillstream_memory_limit_bytes", "Memory that it may have.")
        if memory is not None:
            used.add_metric([], memory.used)
            limit.add_metric([], memory.limit)
        yield from (used, limit)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_message(self, *_: Any) -> None:
        """Nothing: a line for every scrape would hide everything else."""


def _application(registry: CollectorRegistry, health: Health) -> Callable[..., Iterable[bytes]]:
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
    answers = {"/live": health.live, "/ready": health.ready}

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environ, start_response)
        answer = answers.get(path)
        if answer is None:
            return _say(start_response, "404 Not Found", "there are /metrics, /live and /ready")
        wrong = answer()
        return _say(start_response, "503 Service Unavailable" if wrong else "200 OK", wrong or "ok")

    return application


def _say(start_response: Any, status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
