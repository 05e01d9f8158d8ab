"""Who may reach whom, by the NetworkPolicies of a rendering, and who has to, by the settings of each workload.

The two are worked out apart: policies know labels and ports, settings addresses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic_settings import BaseSettings

from sales.settings import BoardSettings, StoreSettings, StreamSettings
from support.manifests import (
    OURS,
    WORKLOADS,
    Object,
    app,
    containers,
    of_kind,
    pod_labels,
    secret_files,
    selects,
    settings,
    title,
)

NAMESPACE = {"kubernetes.io/metadata.name": "tillstream"}
OUTSIDE = "outside"
HTTPS = 443


@dataclass(frozen=True, order=True, slots=True)
class Edge:
    """One may open connections to the other."""

    source: str
    """a workload, by ``app.kubernetes.io/name``"""
    target: str
    """another one, or OUTSIDE the cluster"""
    port: int


def needed(objects: Sequence[Object], kinds: Mapping[str, type[BaseSettings]]) -> set[Edge]:
    """What the workloads connect to, by their settings.

    Args:
        objects: a rendering.
        kinds: workload to the class of its settings.
    """
    found = set()
    for each in of_kind(objects, *WORKLOADS):
        if app(each) not in OURS:
            continue
        told = {name.upper(): text.strip() for name, text in secret_files(each, objects).items()}
        told |= settings(each, objects)
        kind = kinds[app(each)]
        for host, port in _addresses(told, kind, rebuild=app(each) == "rebuild"):
            found.add(Edge(app(each), _served_by(host, objects), port))
    return found


def _addresses(told: Mapping[str, str], kind: type[BaseSettings], *, rebuild: bool) -> Iterator[tuple[str, int]]:
    if issubclass(kind, StreamSettings):
        if told["STREAM"] == "kinesis":
            yield _aws(told, "KINESIS")
        else:
            for address in told["KAFKA_BOOTSTRAP_SERVERS"].split(","):
                host, _, port = address.partition(":")
                yield host, int(port)
    if issubclass(kind, StoreSettings):
        yield _aws(told, "S3")
        if not rebuild:  # what is built again comes from S3 and the stream, and goes to a disk
            yield _aws(told, "DYNAMODB")
    if issubclass(kind, BoardSettings) and not rebuild:
        parts = urlsplit(told["REDIS_URL"])
        assert parts.hostname
        assert parts.port
        yield parts.hostname, parts.port


def _aws(told: Mapping[str, str], service: str) -> tuple[str, int]:
    address = told.get(f"AWS_ENDPOINT_URL_{service}")
    if address is None:
        return "amazonaws.com", HTTPS
    parts = urlsplit(address)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def _served_by(host: str, objects: Sequence[Object]) -> str:
    if not host.endswith(".tillstream.svc"):
        return OUTSIDE
    [service] = [each for each in of_kind(objects, "Service") if each["metadata"]["name"] == host.partition(".")[0]]
    [workload] = [each for each in of_kind(objects, *WORKLOADS)
                  if selects({"matchLabels": service["spec"]["selector"]}, pod_labels(each))]  # fmt: skip
    return app(workload)


def allowed(objects: Sequence[Object]) -> set[Edge]:
    """What the policies let through between workloads (on the ports that these name), and to the outside on any port.
    DNS is left out."""
    workloads = of_kind(objects, *WORKLOADS)
    found = set()
    for source in workloads:
        rules = _rules(objects, source, "Egress")
        found |= {Edge(app(source), OUTSIDE, port) for rule in rules for peer in rule.get("to", ())
                  if "ipBlock" in peer for port in _ports(rule, source)}  # fmt: skip
        for target in workloads:
            for port in _served(target):
                goes = any(_matches(rule, "to", target, port) for rule in rules)
                comes = any(
                    _matches(rule, "from", source, port, at=target) for rule in _rules(objects, target, "Ingress")
                )
                if goes and comes:
                    found.add(Edge(app(source), app(target), port))
    return found


def one_sided(objects: Sequence[Object]) -> Iterator[str]:
    """Policies that let somebody out to a workload which does not let him in, or the other way round."""
    workloads = of_kind(objects, *WORKLOADS)
    for source in workloads:
        for target in workloads:
            for port in _served(target):
                goes = any(_matches(rule, "to", target, port) for rule in _rules(objects, source, "Egress"))
                comes = any(
                    _matches(rule, "from", source, port, at=target) for rule in _rules(objects, target, "Ingress")
                )
                if goes is not comes:
                    yield f"{title(source)} to {title(target)}, port {port}: {'out' if goes else 'in'} alone"


def open_to(objects: Sequence[Object], target: str, port: int) -> set[str]:
    """Other namespaces that may connect to a workload."""
    [workload] = [each for each in of_kind(objects, *WORKLOADS) if app(each) == target]
    return {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in _rules(objects, workload, "Ingress")
        if port in _ports(rule, workload)
        for peer in rule.get("from", ())
        if "namespaceSelector" in peer and "podSelector" not in peer
    }


def _rules(objects: Sequence[Object], workload: Object, direction: str) -> list[dict[str, Any]]:
    return [
        rule
        for policy in of_kind(objects, "NetworkPolicy")
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod_labels(workload))
        for rule in policy["spec"].get(direction.lower(), ())
    ]


def _matches(rule: Mapping[str, Any], side: str, other: Object, port: int, *, at: Object | None = None) -> bool:
    if port not in _ports(rule, at or other):
        return False
    peers = rule.get(side)
    return peers is None or any(
        "ipBlock" not in peer
        and selects(peer.get("podSelector", {}), pod_labels(other))
        and ("namespaceSelector" not in peer or selects(peer["namespaceSelector"], NAMESPACE))
        for peer in peers
    )


def _ports(rule: Mapping[str, Any], server: Object) -> set[int]:
    """Of a rule, names looked up where they are served; 0 for all ports, which no rule of ours has."""
    names = {port["name"]: port["containerPort"] for each in containers(server) for port in each.get("ports", ())}
    if "ports" not in rule:
        return {0}
    return {names.get(port["port"], 0) if isinstance(port["port"], str) else port["port"] for port in rule["ports"]}


def _served(workload: Object) -> set[int]:
    return {port["containerPort"] for each in containers(workload) for port in each.get("ports", ())}
