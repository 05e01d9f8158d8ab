"""A real Redis with the users of deploy/redis/users.acl, and with TLS where the server was built with it."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import redis
import trustme

from tillstream.local import redis as local_redis
from tillstream.local.nursery import Nursery
from tillstream.local.server import LOOPBACK, start

USERS = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
NAMES = ("processor", "auditor", "reader")
ADMIN = "admin"
"""May do everything; not one of the file's."""


def password_of(user: str) -> str:
    return f"secret-of-{user}"


def listed() -> dict[str, list[str]]:
    """Each user's rules in the file."""
    users = [line.split() for line in USERS.read_text().splitlines()]
    return {words[1]: words[2:] for words in users}


@dataclass(frozen=True)
class SecureRedis:
    """Where it is, and whom to trust."""

    port: int
    authority: Path | None
    """PEM; None: the server has no TLS"""
    stranger: Path
    """PEM: another authority"""

    def url(self, user: str, password: str | None = None, authority: Path | None = None) -> str:
        """As a service is given it."""
        who = f"{user}:{password_of(user) if password is None else password}@{LOOPBACK}:{self.port}/0"
        trusted = authority or self.authority
        return f"redis://{who}" if trusted is None else f"rediss://{who}?ssl_ca_certs={trusted}"

    def client(self, user: str) -> "redis.Redis":
        return redis.Redis.from_url(self.url(user), socket_timeout=10, decode_responses=True, driver_info=None)


def start_secure(nursery: Nursery) -> SecureRedis:
    """Starts one: the program that REDIS_SERVER names, or the one that all tests use, which may have been built without
    TLS. ServerError where no server can be had."""
    binary = os.environ.get("REDIS_SERVER") or local_redis.find_binary()
    keys = nursery.folder("redis-certificates")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(keys / "authority.pem"))
    stranger.cert_pem.write_to_path(str(keys / "stranger.pem"))
    authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(str(keys / "server.pem"))
    tls = has_tls(binary)

    def command(ports: list[int], folder: Path) -> list[str]:
        acl = USERS.read_text()
        for user in NAMES:
            digest = hashlib.sha256(password_of(user).encode()).hexdigest()
            acl = acl.replace(f"{user.upper()}_PASSWORD_SHA256", digest)
        (folder / "users.acl").write_text(f"{acl}user {ADMIN} on >{password_of(ADMIN)} ~* &* +@all\n")
        settings: Mapping[str, str] = {
            "port": "0" if tls else str(ports[0]),
            "bind": LOOPBACK,
            "dir": str(folder),
            "save": "",
            "aclfile": str(folder / "users.acl"),
            **(
                {
                    "tls-port": str(ports[0]),
                    "tls-cert-file": str(keys / "server.pem"),
                    "tls-key-file": str(keys / "server.pem"),
                    "tls-auth-clients": "no",
                }
                if tls
                else {}
            ),
        }
        return [binary, *(part for name, value in settings.items() for part in (f"--{name}", value))]

    def made(port: int) -> SecureRedis:
        return SecureRedis(port, keys / "authority.pem" if tls else None, keys / "stranger.pem")

    def answers(address: str, _: object) -> bool:
        client = made(int(address)).client(ADMIN)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    server = start(
        nursery, "redis with users", command=command, address=str, answers=answers,
        seconds=local_redis.START_SECONDS,
    )  # fmt: skip
    return made(server.port)


def has_tls(binary: str) -> bool:
    """Was the server built with it? Then it misses the certificate, else it does not know the setting."""
    asked = subprocess.run(
        [shutil.which(binary) or binary, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/nowhere"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return "configure TLS" in asked.stdout + asked.stderr
