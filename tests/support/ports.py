"""Ports for what listens later than they are asked for, or never."""

import secrets
import socket
from pathlib import Path

from tillstream.local.server import LOOPBACK

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def lasting_ports(count: int = 1) -> list[int]:
    """Free ports that no outgoing connection gets, and nobody who asks for any port.

    A client that tries again and again to reach a port which was given out for a moment would sooner or later be
    connected to itself, and the server could not come back; a service that imports for seconds before it listens could
    find another there.
    """
    first = int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 32_768
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(range(10_000, first))  # no seed makes two workers draw the same
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if port not in found and probe.connect_ex((LOOPBACK, port)):
                found.append(port)
    return found
