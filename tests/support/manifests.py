"""Manifests as ``kubectl kustomize`` renders them, and how to find one's way in them."""

import base64
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
"""A Kubernetes object, as parsed from YAML."""

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
OVERLAYS = ("local", "aws")

WORKLOADS = ("Deployment", "StatefulSet", "Job")
TEMPLATE = ("spec", "template")

OURS = ("auditor", "generator", "processor", "rebuild", "replay", "setup", "sink")
"""Workloads that run an image of ours; the others are local stand-ins for managed services."""

_SECONDS = 60


class RenderError(Exception):
    """What kubectl says against it."""


def kubectl() -> str | None:
    """Its path, if there is one."""
    return shutil.which("kubectl")


@cache
def rendered(folder: Path) -> str:
    """A kustomization as YAML; blocks for some tenths of a second, once for each folder.

    Raises:
        RenderError: it can't be rendered.
    """
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    if done.returncode:
        raise RenderError(done.stderr.strip())
    return done.stdout


def parsed(text: str) -> list[Object]:
    """The objects of a file. In C: there are tens of renderings with tens of objects each."""
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each is not None]


@dataclass(frozen=True, slots=True)
class Combination:
    """An overlay, or a choice of components: what somebody may apply."""

    base: str
    """below deploy/k8s"""
    components: tuple[str, ...] = ()
    """below deploy/k8s/components"""

    def __str__(self) -> str:
        return " + ".join((self.base.removeprefix("overlays/"), *self.components))

    def written(self, folder: Path) -> Path:
        """A kustomization of it in a new folder below this one. Paths have to be relative, and no links."""
        place = folder.resolve() / str(self).replace("/", "-").replace(" + ", "+")
        if not place.exists():
            place.mkdir()
            up = Path(*[".."] * len(place.relative_to(place.anchor).parts))
            there = up / K8S.resolve().relative_to(place.anchor)
            document = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "tillstream",
                "resources": [str(there / self.base)],
                "components": [str(there / "components" / name) for name in self.components],
            }
            (place / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return place


def combinations() -> Iterator[Combination]:
    """All that make sense: a stream, where the stores are, who sends orders, and what is added or not."""
    stores = ("redis", "s3", "dynamodb")
    for sender in ((), ("generator",), ("replay",)):
        for repair in ((), ("rebuild",)):
            for watched in ((), ("monitoring",)):
                more = (*sender, *repair, *watched)
                yield Combination("base", ("kafka", *stores, *more))
                yield Combination("base", ("kafka", *stores, "keda", *more))
                yield Combination("base", ("kinesis-mock", *stores, *more))
                yield Combination("overlays/aws", more)
                yield Combination("overlays/aws", ("keda-scram", *more))
                yield Combination("overlays/aws", ("kinesis-aws", *more))
    yield Combination("overlays/local")


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """Those of the kinds."""
    return [each for each in objects if each["kind"] in kinds]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The one, by ``app.kubernetes.io/name``: names themselves may end in a hash."""
    [found] = [each for each in of_kind(objects, kind) if labels(each).get("app.kubernetes.io/name") == name]
    return found


def title(obj: Object) -> str:
    """For messages: ``Deployment sink``."""
    return f"{obj['kind']} {obj['metadata']['name']}"


def labels(obj: Object) -> dict[str, str]:
    """An object's own."""
    return obj["metadata"].get("labels") or {}


def template(workload: Object) -> Object:
    """What its pods are made from."""
    found: Object = workload["spec"]["template"]
    return found


def pod_labels(workload: Object) -> dict[str, str]:
    """Those of its pods."""
    return template(workload)["metadata"].get("labels") or {}


def pod(workload: Object) -> Object:
    """The specification of its pods."""
    found: Object = template(workload)["spec"]
    return found


def containers(workload: Object) -> list[Object]:
    """All, those that run first too."""
    return [*pod(workload).get("initContainers", ()), *pod(workload)["containers"]]


def app(workload: Object) -> str:
    """``app.kubernetes.io/name`` of its pods."""
    return pod_labels(workload).get("app.kubernetes.io/name", "")


def selects(selector: Mapping[str, Any] | None, found: Mapping[str, str]) -> bool:
    """Does a label selector take these labels? An empty one takes all, None none."""
    if selector is None:
        return False
    exact = all(found.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return exact and all(_expression(each, found) for each in selector.get("matchExpressions") or ())


def _expression(expression: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    value, wanted = found.get(expression["key"]), expression.get("values", ())
    match expression["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case _:
            return value is None


def settings(workload: Object, objects: Sequence[Object]) -> dict[str, str]:
    """The environment of a workload's first container, from its ConfigMaps and its own list, as the kubelet puts it
    together."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(objects, "ConfigMap")}
    container = pod(workload)["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= maps.get(source.get("configMapRef", {}).get("name"), {})
    return found | {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}


def secret_files(workload: Object, objects: Sequence[Object]) -> dict[str, str]:
    """File name to what is in it, for all Secrets that a workload has mounted and that are there."""
    secrets = {each["metadata"]["name"]: each for each in of_kind(objects, "Secret")}
    names = [source["secret"]["name"] for volume in pod(workload).get("volumes", ())
             for source in volume.get("projected", {}).get("sources", ()) if "secret" in source]  # fmt: skip
    return {name: text for each in names if each in secrets for name, text in _decoded(secrets[each]).items()}


def _decoded(secret: Object) -> dict[str, str]:
    return {name: base64.b64decode(text).decode() for name, text in (secret.get("data") or {}).items()}
