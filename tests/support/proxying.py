"""A server between a service and another, where a test can hold up what is sent, or answer it itself."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

PIECE_BYTES = 65_536
"""Taken at one time: the head of a request comes in one piece."""


class Proxy:
    """Passes on what clients send.

    Args:
        port: its own.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.on_piece: Callable[[bytes], bytes | None] = lambda _piece: None
        """asked for each piece that a client sends, on a thread of its connection's own: may wait; an answer to give
        instead, or None"""


@contextlib.contextmanager
def proxy_of(address: str) -> Iterator[Proxy]:
    """A proxy of a server, until the block ends."""
    parts = urlsplit(address)
    there = (parts.hostname or "", parts.port or 80)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), socket.create_connection(there) as upstream:
                answers = threading.Thread(target=self._pass_on, args=(upstream, self.request), daemon=True)
                answers.start()
                self._ask(upstream)
                upstream.shutdown(socket.SHUT_RDWR)
                answers.join(10)

        def _ask(self, upstream: socket.socket) -> None:
            while piece := self.request.recv(PIECE_BYTES):
                answer = proxy.on_piece(piece)
                if answer is not None:
                    self.request.sendall(answer)
                    return
                upstream.sendall(piece)

        @staticmethod
        def _pass_on(source: socket.socket, target: Any) -> None:
            with contextlib.suppress(OSError):
                while piece := source.recv(PIECE_BYTES):
                    target.sendall(piece)
                target.shutdown(socket.SHUT_RDWR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Connection) as server:
        proxy = Proxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join(10)
