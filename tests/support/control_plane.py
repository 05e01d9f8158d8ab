"""A real Kubernetes API server with its controllers and scheduler, and nodes on which nothing runs.

``tests/e2e/cluster/build`` makes the programs. Pods are admitted, made, scheduled, bound to volumes, evicted and
replaced as in any cluster; that their containers run and are ready is what kwok says.
"""

import json
import os
import secrets
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support.waiting import eventually
from tillstream.local.nursery import Child, Nursery
from tillstream.local.server import Server, start

START_SECONDS = 120.0
"""Some seconds, and many on a machine with other work."""

CALL_SECONDS = 240

NODES = 2


def folder() -> Path:
    """Where the programs are, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TILLSTREAM_CLUSTER") or cache / "tillstream" / "cluster")


class CallError(Exception):
    """What kubectl says against it."""


class ControlPlane:
    """A cluster of one's own, with everything in it gone at the end.

    Args:
        nursery: holds its processes.
        programs: as `folder` says.
    """

    def __init__(self, nursery: Nursery, programs: Path) -> None:
        self._nursery = nursery
        self._programs = programs
        self._own = nursery.folder("cluster")
        self._config = self._own / "kubeconfig"
        token = secrets.token_hex()
        (self._own / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self._own / "accounts.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        server = self._api(self._etcd())
        self._write_config(server.address, token)
        self._run("controller-manager", "--leader-elect=false", "--secure-port=0",
                  f"--service-account-private-key-file={self._own / 'accounts.key'}",
                  f"--root-ca-file={self._own / 'certificates' / 'apiserver.crt'}")  # fmt: skip
        self._run("scheduler", "--leader-elect=false", "--secure-port=0")
        nursery.spawn(
            "kwok",
            [str(programs / "kwok"), f"--kubeconfig={self._config}", "--manage-all-nodes=true",
             f"--config={programs / 'stages.yaml'}"],
            log=self._own / "kwok.log",
        )  # fmt: skip
        self._add_nodes()
        self.kubectl("apply", "--server-side", "-f", str(programs / "definitions.yaml"))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What it prints; blocks.

        Raises:
            CallError: it failed; with what it says about that.
        """
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={self._config}", *arguments],
            input=stdin, capture_output=True, text=True, check=False, timeout=CALL_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise CallError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Objects in our namespace, as `kubectl get` finds them."""
        found: list[dict[str, Any]] = json.loads(
            self.kubectl("--namespace=tillstream", "get", *arguments, "--output=json")
        )["items"]
        return found

    def versions(self, place: Path) -> dict[str, tuple[str, object]]:
        """Of each object of a kustomization: which one it is, and which version of what is wanted."""
        found = json.loads(self.kubectl("get", "-k", str(place), "--output=json"))["items"]
        return {
            f"{each['kind']} {each['metadata']['name']}": (
                each["metadata"]["uid"],
                each["metadata"].get("generation", each["metadata"]["resourceVersion"]),
            )
            for each in found
        }

    def add_volumes(self, count: int, storage_class: str) -> None:
        """Disks that claims of this class are bound to; "" for claims that name none."""
        volumes = [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"{storage_class or 'any'}-{number}"},
                "spec": {
                    "capacity": {"storage": "100Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": storage_class,
                    "hostPath": {"path": "/nowhere"},
                },
            }
            for number in range(count)
        ]
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(volumes))

    def _etcd(self) -> Server:
        def command(ports: list[int], own: Path) -> list[str]:
            here, peers = (f"http://127.0.0.1:{port}" for port in ports)
            return [str(self._programs / "control-plane"), "etcd", "--name=one", f"--data-dir={own / 'data'}",
                    f"--listen-client-urls={here}", f"--advertise-client-urls={here}", f"--listen-peer-urls={peers}",
                    f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=one={peers}",
                    "--unsafe-no-fsync"]  # fmt: skip

        return start(self._nursery, "etcd", command=command, address=lambda port: f"http://127.0.0.1:{port}",
                     answers=_answers("/health"), seconds=START_SECONDS, ports=2)  # fmt: skip

    def _api(self, etcd: Server) -> Server:
        def command(ports: list[int], _: Path) -> list[str]:
            key = self._own / "accounts.key"
            return [str(self._programs / "control-plane"), "apiserver", f"--etcd-servers={etcd.address}",
                    f"--secure-port={ports[0]}", "--bind-address=127.0.0.1",
                    f"--cert-dir={self._own / 'certificates'}", "--authorization-mode=RBAC",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
                    "--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true",
                    f"--token-auth-file={self._own / 'tokens.csv'}"]  # fmt: skip

        return start(self._nursery, "kube-apiserver", command=command, address=lambda port: f"https://127.0.0.1:{port}",
                     answers=_answers("/readyz"), seconds=START_SECONDS)  # fmt: skip

    def _run(self, part: str, *arguments: str) -> None:
        self._nursery.spawn(
            part,
            [str(self._programs / "control-plane"), part, f"--kubeconfig={self._config}", *arguments],
            log=self._own / f"{part}.log",
        )

    def _write_config(self, address: str, token: str) -> None:
        server = {"server": address, "certificate-authority": str(self._own / "certificates" / "apiserver.crt")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
            "current-context": "here",
        }
        self._config.write_text(yaml.safe_dump(document))

    def _add_nodes(self) -> None:
        room = {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "200Gi"}
        nodes = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": f"node-{number}",
                    "labels": {
                        "kubernetes.io/hostname": f"node-{number}",
                        "topology.kubernetes.io/zone": f"zone-{number}",
                    },
                },
                "status": {"allocatable": room, "capacity": room},
            }
            for number in range(1, NODES + 1)
        ]
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(nodes))
        self.kubectl("wait", "--for=condition=Ready", "nodes", "--all", f"--timeout={START_SECONDS:.0f}s")
        eventually(  # service accounts may be made only once each namespace has its first, which a controller makes
            lambda: self.kubectl("get", "serviceaccounts", "--output=name"), "a service account", seconds=START_SECONDS
        )


def _answers(path: str) -> Callable[[str, Child], bool]:
    def ask(address: str, _: Child) -> bool:
        unchecked = ssl.create_default_context()
        unchecked.check_hostname = False
        unchecked.verify_mode = ssl.CERT_NONE  # it makes its certificate at its start; only whether it answers is asked
        try:
            with urllib.request.urlopen(f"{address}{path}", timeout=5, context=unchecked) as answer:  # noqa: S310 (our own)
                return bool(answer.status == 200)
        except OSError:
            return False

    return ask
