"""Applied to a real API server, with real controllers and admission: nodes and containers alone are pretended.

Needs what ``tests/e2e/cluster/build`` makes, and is skipped without it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.control_plane import CallError, ControlPlane, folder
from support.manifests import K8S, Combination, kubectl, rendered
from support.waiting import eventually
from tillstream.local.nursery import Nursery

pytestmark = pytest.mark.slow

ROLL_SECONDS = "240s"


@pytest.fixture(scope="class")
def cluster() -> Iterator[ControlPlane]:
    programs = folder()
    if kubectl() is None or not (programs / "versions").exists():
        reason = f"no kubectl, or no control plane in {programs}: tests/e2e/cluster/build makes one, in some minutes"
        if "cluster" in os.environ.get("TILLSTREAM_REQUIRE", "").split(","):
            pytest.fail(f"TILLSTREAM_REQUIRE asks for cluster: {reason}")
        pytest.skip(reason)
    with Nursery() as nursery:
        yield ControlPlane(nursery, programs)


def outcomes(said: str) -> dict[str, str]:
    """What ``kubectl apply`` says of each object: created, configured, unchanged."""
    return dict(line.rsplit(" ", 1) for line in said.splitlines() if line)


def rolled_out(cluster: ControlPlane, *workloads: str) -> None:
    for each in workloads:
        cluster.kubectl("--namespace=tillstream", "rollout", "status", each, f"--timeout={ROLL_SECONDS}")


def merged(place: Path, combination: Combination, **maps: dict[str, str]) -> Path:
    """The combination with other settings."""
    file = combination.written(place) / "kustomization.yaml"
    document = yaml.safe_load(file.read_text())
    document["configMapGenerator"] = [
        {"name": name, "behavior": "merge", "literals": [f"{key}={text}" for key, text in values.items()]}
        for name, values in maps.items()
    ]
    file.write_text(yaml.safe_dump(document))
    return file.parent


LOCAL = Combination("overlays/local")
RUNNING = ("statefulset/kafka", "statefulset/redis", "statefulset/s3", "statefulset/dynamodb", "deployment/generator",
           "statefulset/processor", "deployment/sink", "deployment/auditor")  # fmt: skip


class TestTheLocalOverlay:
    """One cluster, in the order of a life: applied, applied again, changed, made newer, drained."""

    def test_is_admitted_and_comes_up(self, cluster: ControlPlane) -> None:
        cluster.add_volumes(6, "")
        assert set(outcomes(cluster.kubectl("apply", "-k", str(K8S / "overlays" / "local"))).values()) == {"created"}
        rolled_out(cluster, *RUNNING)
        cluster.kubectl("--namespace=tillstream", "wait", "--for=condition=Complete", "jobs", "--all", "--timeout=120s")
        assert [each for each in cluster.get("events") if each["reason"].startswith("FailedCreate")] == []

    def test_is_as_it_was_when_applied_again_and_by_the_rendered_file(self, cluster: ControlPlane) -> None:
        overlay = K8S / "overlays" / "local"
        before = cluster.versions(overlay)
        # kubectl calls it "configured" when it sends a patch, and it sends one for each list and selector that has
        # values of the server's in it: what counts is whether anything became another version.
        assert "created" not in outcomes(cluster.kubectl("apply", "-k", str(overlay))).values()
        assert "created" not in outcomes(cluster.kubectl("apply", "-f", str(K8S / "tillstream-local.yaml"))).values()
        assert cluster.versions(overlay) == before

    def test_refuses_pods_that_ask_for_more_than_ours(self, cluster: ControlPlane) -> None:
        with pytest.raises(CallError, match="violates PodSecurity"):
            cluster.kubectl("--namespace=tillstream", "run", "strange", "--image=busybox", "--privileged")
        with pytest.raises(CallError, match="violates PodSecurity"):
            cluster.kubectl("--namespace=tillstream", "run", "strange", "--image=busybox")

    def test_refuses_what_is_misspelt(self, cluster: ControlPlane) -> None:
        text = rendered(K8S / "overlays" / "local").replace("livenessProbe:", "livelinessProbe:")
        with pytest.raises(CallError, match="livelinessProbe"):
            cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)

    def test_rolls_those_that_read_a_changed_setting(self, cluster: ControlPlane, tmp_path: Path) -> None:
        before = {each["metadata"]["name"]: each["metadata"]["uid"] for each in cluster.get("pods")}
        wanted = cluster.versions(K8S / "overlays" / "local")
        place = merged(tmp_path, LOCAL, board={"TOP_K": "50"})
        cluster.kubectl("apply", "-k", str(place))

        changed = {name for name, version in cluster.versions(place).items() if wanted.get(name) != version}
        [board] = {name for name in changed if name.startswith("ConfigMap board-")}
        assert changed == {"StatefulSet processor", "Deployment auditor", board}
        rolled_out(cluster, "statefulset/processor", "deployment/auditor")
        after = {each["metadata"]["name"]: each["metadata"]["uid"] for each in cluster.get("pods")}
        gone = {name for name, uid in before.items() if after.get(name) != uid}
        assert {name.split("-")[0] for name in gone} == {"processor", "auditor"}

    def test_sets_up_again_when_its_settings_change(self, cluster: ControlPlane, tmp_path: Path) -> None:
        before = {each["metadata"]["name"] for each in cluster.get("jobs")}
        more = {"PARTITIONS": "8"}
        cluster.kubectl("apply", "-k", str(merged(tmp_path, LOCAL, streams=more, setup=more)))
        [job] = {each["metadata"]["name"] for each in cluster.get("jobs")} - before
        cluster.kubectl("--namespace=tillstream", "wait", "--for=condition=Complete", f"job/{job}", "--timeout=120s")
        rolled_out(cluster, *RUNNING)

    def test_becomes_the_next_version(self, cluster: ControlPlane, tmp_path: Path) -> None:
        newer = tmp_path / "k8s"
        shutil.copytree(K8S, newer)
        for file in newer.rglob("kustomization.yaml"):
            file.write_text(file.read_text().replace("0.1.0", "0.2.0"))
        before = {each["metadata"]["name"] for each in cluster.get("jobs")}

        cluster.kubectl("apply", "-k", str(newer / "overlays" / "local"))

        rolled_out(cluster, *RUNNING)
        ours = cluster.get("pods", "--selector=app.kubernetes.io/name in (processor, sink, auditor)")
        images = {each["spec"]["containers"][0]["image"] for each in ours}
        assert images == {f"tillstream/{name}:0.2.0" for name in ("processor", "sink", "auditor")}
        assert {each["metadata"]["name"] for each in cluster.get("jobs")} - before
        [claim] = [each for each in cluster.get("pvc") if each["metadata"]["name"] == "state-processor-0"]
        assert claim["status"]["phase"] == "Bound"

    def test_lets_a_node_be_drained(self, cluster: ControlPlane) -> None:
        [pod] = cluster.get("pods", "--selector=app.kubernetes.io/name=processor")
        node = pod["spec"]["nodeName"]
        cluster.kubectl("drain", node, "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=120s")
        rolled_out(cluster, *RUNNING)
        assert {each["spec"]["nodeName"] for each in cluster.get("pods", "--field-selector=status.phase=Running")
                } == {"node-1", "node-2"} - {node}  # fmt: skip
        cluster.kubectl("uncordon", node)


class TestTheAwsOverlay:
    def test_is_admitted_and_comes_up(self, cluster: ControlPlane) -> None:
        cluster.add_volumes(1, "gp3")
        assert set(outcomes(cluster.kubectl("apply", "-k", str(K8S / "overlays" / "aws"))).values()) == {"created"}
        rolled_out(cluster, "statefulset/processor", "deployment/sink", "deployment/auditor")
        before = cluster.versions(K8S / "overlays" / "aws")
        assert "created" not in outcomes(cluster.kubectl("apply", "-f", str(K8S / "tillstream-aws.yaml"))).values()
        assert cluster.versions(K8S / "overlays" / "aws") == before

    def test_takes_what_others_define(self, cluster: ControlPlane, tmp_path: Path) -> None:
        place = Combination("overlays/aws", ("keda-scram", "monitoring")).written(tmp_path)
        cluster.kubectl("apply", "-k", str(place))
        [scaled] = cluster.get("scaledobjects.keda.sh")
        assert scaled["spec"]["maxReplicaCount"] == 4
        assert cluster.get("podmonitors.monitoring.coreos.com")
        assert cluster.get("prometheusrules.monitoring.coreos.com")

    def test_leaves_the_number_of_sinks_to_keda(self, cluster: ControlPlane, tmp_path: Path) -> None:
        place = Combination("overlays/aws", ("keda-scram",)).written(tmp_path)
        cluster.kubectl("--namespace=tillstream", "scale", "deployment/sink", "--replicas=4")
        cluster.kubectl("apply", "-k", str(place))
        [sink] = [each for each in cluster.get("deployments") if each["metadata"]["name"] == "sink"]
        assert sink["spec"]["replicas"] == 4

    def test_changes_to_kinesis_and_to_one_sink(self, cluster: ControlPlane, tmp_path: Path) -> None:
        cluster.kubectl("apply", "-k", str(Combination("overlays/aws", ("kinesis-aws",)).written(tmp_path)))
        rolled_out(cluster, "deployment/sink")
        [sink] = [each for each in cluster.get("deployments") if each["metadata"]["name"] == "sink"]
        assert sink["spec"]["replicas"] == 1
        assert sink["spec"]["strategy"] == {"type": "Recreate"}

    def test_makes_the_state_again_while_no_processor_runs(self, cluster: ControlPlane, tmp_path: Path) -> None:
        cluster.kubectl("apply", "-k", str(Combination("overlays/aws", ("rebuild",)).written(tmp_path)))
        cluster.kubectl("--namespace=tillstream", "wait", "--for=condition=Complete", "job/rebuild", "--timeout=120s")
        eventually(lambda: not cluster.get("pods", "--selector=app.kubernetes.io/name=processor"), "no processor")
        cluster.kubectl("--namespace=tillstream", "delete", "job/rebuild")
        cluster.kubectl("apply", "-k", str(K8S / "overlays" / "aws"))
        rolled_out(cluster, "statefulset/processor")
