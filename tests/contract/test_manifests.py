"""Every rendering of deploy/k8s keeps to its rules: what may be applied is what was meant.

The rules are functions in `support.manifest_rules`; that each of them can fail is tested with what it is about taken
away.
"""

import copy
import json
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel

from auditor.settings import AuditorSettings
from generator.settings import GeneratorSettings
from processor.settings import ProcessorSettings
from sales.settings import Settings
from sink.settings import SinkSettings
from support import manifest_network as network
from support import manifest_rules as rules
from support.custom_resources import MODELS
from support.manifests import (
    K8S,
    OURS,
    OVERLAYS,
    WORKLOADS,
    Combination,
    Object,
    app,
    combinations,
    kubectl,
    labels,
    named,
    of_kind,
    parsed,
    pod,
    rendered,
    secret_files,
    settings,
    title,
)
from tillstream.rebuild import RebuildSettings
from tillstream.setup import SetupSettings

pytestmark = pytest.mark.skipif(kubectl() is None, reason="no kubectl on this machine")

COMBINATIONS = list(combinations())

KINDS: dict[str, type[Settings]] = {
    "auditor": AuditorSettings,
    "generator": GeneratorSettings,
    "processor": ProcessorSettings,
    "rebuild": RebuildSettings,
    "replay": GeneratorSettings,
    "setup": SetupSettings,
    "sink": SinkSettings,
}

NO_SETTINGS = {
    "SECRETS_DIR": "says where files with settings are",
    "LOG_FORMAT": "read before the settings are",
    "AWS_SHARED_CREDENTIALS_FILE": "boto3's",
    "TILLSTREAM_IMAGE": "makes the setup Job another one when its image is",
}
"""Variables that are no field of a class of settings."""

KUBERNETES = ("1.30", "1.37")
"""The oldest and the newest version whose schemas a rendering has to fit."""


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Combination], list[Object]]:
    folder = tmp_path_factory.mktemp("kustomizations")
    return cache(lambda combination: parsed(rendered(combination.written(folder))))


@pytest.fixture
def local(render: Callable[[Combination], list[Object]]) -> list[Object]:
    return copy.deepcopy(render(Combination("overlays/local")))


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
class TestEveryRendering:
    @pytest.fixture
    def objects(self, combination: Combination, render: Callable[[Combination], list[Object]]) -> list[Object]:
        return render(combination)

    def test_keeps_to_every_rule(self, objects: list[Object]) -> None:
        assert [fault for rule in rules.RULES for fault in rule(objects)] == []

    def test_fits_the_schemas_of_kubernetes_and_of_those_who_extend_it(self, objects: list[Object]) -> None:
        fit(objects)

    def test_tells_each_service_settings_that_it_has_and_takes(
        self, objects: list[Object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = [each for each in of_kind(objects, *WORKLOADS) if app(each) in OURS]
        assert {"auditor", "processor", "setup", "sink"} <= {app(each) for each in found}
        for each in found:
            told, kind = settings(each, objects), KINDS[app(each)]
            strange = {name for name in told if name.lower() not in kind.model_fields} - NO_SETTINGS.keys()
            assert not strange, f"{title(each)} knows nothing of {strange}"
            load(kind, told, secret_files(each, objects), monkeypatch)

    def test_opens_the_ways_that_the_settings_need_and_no_other(self, objects: list[Object]) -> None:
        assert network.allowed(objects) == network.needed(objects, KINDS)
        assert list(network.one_sided(objects)) == []

    def test_lets_nobody_in_from_other_namespaces_but_prometheus_and_keda(self, objects: list[Object]) -> None:
        scaled = bool(of_kind(objects, "ScaledObject"))
        for each in of_kind(objects, "Deployment", "StatefulSet"):
            for port in pod(each)["containers"][0]["ports"]:
                expected = (
                    {"monitoring"} if app(each) in OURS else {"keda"} if app(each) == "kafka" and scaled else set()
                )
                assert network.open_to(objects, app(each), port["containerPort"]) == expected

    def test_names_every_object_once(self, objects: list[Object]) -> None:
        names = [(each["apiVersion"], title(each)) for each in objects]
        assert len(set(names)) == len(names)


def fit(objects: Sequence[Object]) -> None:
    """Raises what does not fit; the versions' schemas for what Kubernetes has, a model for what others add."""
    for each in objects:
        model: type[BaseModel] | None = MODELS.get((each["apiVersion"], each["kind"]))
        if model is not None:
            model.model_validate(each)
        else:
            for version in KUBERNETES:
                fits(json.dumps(each), version)


@cache
def fits(text: str, version: str) -> None:
    """Most objects are the same in most renderings."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


def load(
    kind: type[Settings], told: dict[str, str], files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """As the service would: from its environment and its files, and nothing else."""
    with monkeypatch.context() as world:
        for name in list(os.environ):
            if name.lower() in kind.model_fields or name in NO_SETTINGS:
                world.delenv(name)
        for name, text in told.items():
            if name not in NO_SETTINGS:
                world.setenv(name, text)
        known = {name: text.strip() for name, text in files.items() if name in kind.model_fields}
        return kind(**known)


class TestARenderedFile:
    @pytest.mark.parametrize("overlay", OVERLAYS)
    def test_is_what_its_sources_give(self, overlay: str) -> None:
        written = (K8S / f"tillstream-{overlay}.yaml").read_text()
        _, _, objects = written.partition("\n---\n")
        assert objects == rendered(K8S / "overlays" / overlay), "run `make manifests`"
        assert written.startswith("# ")


class TestTheLocalOverlay:
    def test_is_the_components_that_it_lists(self, render: Callable[[Combination], list[Object]]) -> None:
        pieces = ("generator", "kafka", "redis", "s3", "dynamodb")
        assert render(Combination("overlays/local")) == render(Combination("base", pieces))

    def test_has_the_same_credentials_on_both_sides_of_its_store(self, local: list[Object]) -> None:
        [sink] = [each for each in of_kind(local, "Deployment") if app(each) == "sink"]
        theirs = secret_files(sink, local)["aws_credentials"]
        [identity] = yaml.safe_load((K8S / "components" / "s3" / "s3.json").read_text())["identities"]
        [pair] = identity["credentials"]
        assert f"aws_access_key_id = {pair['accessKey']}\n" in theirs
        assert f"aws_secret_access_key = {pair['secretKey']}\n" in theirs

    def test_runs_the_versions_that_the_project_is_tested_with(self, local: list[Object]) -> None:
        images = {app(each): pod(each)["containers"][0]["image"] for each in of_kind(local, "StatefulSet")}
        assert images["kafka"] == "apache/kafka:4.3.1"
        assert images["redis"] == "redis:8"
        assert images["s3"] == "chrislusf/seaweedfs:4.46"
        assert images["dynamodb"] == "amazon/dynamodb-local:3.3.1"


class TestTheAwsOverlay:
    @pytest.fixture
    def objects(self, render: Callable[[Combination], list[Object]]) -> list[Object]:
        return render(Combination("overlays/aws"))

    def test_gives_a_role_to_each_service_that_asks_aws_for_something(self, objects: list[Object]) -> None:
        roles = {
            each["metadata"]["name"]: each["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn", "")
            for each in of_kind(objects, "ServiceAccount")
        }
        assert {name for name, role in roles.items() if role.endswith(f":role/tillstream-{name}")} == roles.keys()

    def test_is_encrypted_on_every_way(self, objects: list[Object]) -> None:
        for each in of_kind(objects, *WORKLOADS):
            told, files = settings(each, objects), secret_files(each, objects)
            assert told.get("KAFKA_SECURITY_PROTOCOL", "SASL_SSL") == "SASL_SSL"
            assert files.get("redis_url", "rediss://").startswith("rediss://")
            assert not [name for name in told if name.startswith("AWS_ENDPOINT_URL")]

    def test_sends_no_orders_of_its_own(self, objects: list[Object]) -> None:
        assert {app(each) for each in of_kind(objects, *WORKLOADS)} == {"auditor", "processor", "setup", "sink"}


def test_the_version_is_the_packages_own(local: list[Object]) -> None:
    version = tomllib.loads((K8S.parents[1] / "services" / "sink" / "pyproject.toml").read_text())["project"]["version"]
    ours = [each for each in of_kind(local, *WORKLOADS) if app(each) in OURS]
    for each in ours:
        assert pod(each)["containers"][0]["image"].endswith(f":{version}"), title(each)
        assert labels(each)["app.kubernetes.io/version"] == version


def test_a_changed_setting_rolls_those_that_read_it_and_nobody_else(
    render: Callable[[Combination], list[Object]], tmp_path: Path
) -> None:
    changed = Combination("overlays/local").written(tmp_path) / "kustomization.yaml"
    merged = [{"name": "board", "behavior": "merge", "literals": ["TOP_K=50"]}]
    changed.write_text(yaml.safe_dump(yaml.safe_load(changed.read_text()) | {"configMapGenerator": merged}))

    def templates(objects: Sequence[Object]) -> dict[str, Any]:
        return {title(each): each["spec"]["template"] for each in of_kind(objects, *WORKLOADS)}

    before = templates(render(Combination("overlays/local")))
    after = templates(parsed(rendered(changed.parent)))

    assert {name for name in before if before[name] != after[name]} == {"StatefulSet processor", "Deployment auditor"}


def test_a_changed_setting_of_setup_is_a_new_job(render: Callable[[Combination], list[Object]], tmp_path: Path) -> None:
    changed = Combination("overlays/local").written(tmp_path) / "kustomization.yaml"
    merged = [{"name": name, "behavior": "merge", "literals": ["PARTITIONS=8"]} for name in ("streams", "setup")]
    changed.write_text(yaml.safe_dump(yaml.safe_load(changed.read_text()) | {"configMapGenerator": merged}))

    before, after = (
        named(objects, "Job", "setup")["metadata"]["name"]
        for objects in (render(Combination("overlays/local")), parsed(rendered(changed.parent)))
    )

    assert before != after
    assert re.fullmatch(r"setup-[0-9a-z]{10}", after)


Change = Callable[[list[Object]], object]


def workload(name: str, objects: list[Object]) -> Object:
    [found] = [each for each in of_kind(objects, *WORKLOADS) if app(each) == name]
    return found


def container(name: str, objects: list[Object]) -> Object:
    found: Object = pod(workload(name, objects))["containers"][0]
    return found


def policy(name: str, objects: list[Object]) -> Object:
    return named(objects, "NetworkPolicy", name)


CHANGES: list[tuple[rules.Rule, Change]] = [
    (rules.carries_the_recommended_labels, lambda o: labels(o[5]).pop("app.kubernetes.io/part-of")),
    (rules.carries_the_recommended_labels,
     lambda o: workload("sink", o)["spec"]["template"]["metadata"]["labels"].pop("app.kubernetes.io/version")),
    (rules.belongs_to_the_namespace_that_enforces_the_restricted_standard,
     lambda o: labels(of_kind(o, "Namespace")[0]).update({"pod-security.kubernetes.io/enforce": "baseline"})),
    (rules.belongs_to_the_namespace_that_enforces_the_restricted_standard,
     lambda o: workload("sink", o)["metadata"].update(namespace="default")),
    (rules.pins_images, lambda o: container("sink", o).update(image="tillstream/sink:latest")),
    (rules.pins_images, lambda o: container("redis", o).update(image="redis")),
    (rules.runs_restricted, lambda o: pod(workload("sink", o))["securityContext"].pop("runAsNonRoot")),
    (rules.runs_restricted, lambda o: pod(workload("sink", o))["securityContext"].update(runAsUser=1000)),
    (rules.runs_restricted, lambda o: pod(workload("kafka", o))["securityContext"].pop("seccompProfile")),
    (rules.runs_restricted, lambda o: pod(workload("sink", o)).update(hostNetwork=True)),
    (rules.runs_restricted, lambda o: container("s3", o)["securityContext"].pop("allowPrivilegeEscalation")),
    (rules.runs_restricted, lambda o: container("sink", o)["securityContext"].pop("readOnlyRootFilesystem")),
    (rules.runs_restricted, lambda o: container("sink", o)["securityContext"].pop("capabilities")),
    (rules.runs_restricted, lambda o: container("sink", o)["securityContext"].update(privileged=True)),
    (rules.bounds_what_pods_may_use, lambda o: container("auditor", o)["resources"]["limits"].pop("memory")),
    (rules.bounds_what_pods_may_use, lambda o: container("auditor", o)["resources"]["requests"].update(cpu="8")),
    (rules.bounds_what_pods_may_use, lambda o: pod(workload("sink", o))["volumes"][0].update(emptyDir={})),
    (rules.bounds_what_pods_may_use,
     lambda o: pod(workload("sink", o))["volumes"][0].update(emptyDir={"sizeLimit": "1Gi"})),
    (rules.asks_pods_how_they_are, lambda o: container("processor", o).pop("readinessProbe")),
    (rules.asks_pods_how_they_are, lambda o: container("kafka", o).pop("startupProbe")),
    (rules.asks_pods_how_they_are,
     lambda o: container("processor", o)["livenessProbe"]["httpGet"].update(path="/ready")),
    (rules.asks_pods_how_they_are, lambda o: container("processor", o)["ports"][0].update(containerPort=8080)),
    (rules.gives_a_start_its_time, lambda o: container("processor", o)["startupProbe"].update(failureThreshold=10)),
    (rules.mounts_no_token, lambda o: pod(workload("sink", o)).pop("automountServiceAccountToken")),
    (rules.mounts_no_token, lambda o: named(o, "ServiceAccount", "sink").pop("automountServiceAccountToken")),
    (rules.mounts_no_token, lambda o: pod(workload("sink", o)).update(serviceAccountName="processor")),
    (rules.mounts_no_token, lambda o: pod(workload("kafka", o)).pop("enableServiceLinks")),
    (rules.lets_nodes_be_drained, lambda o: named(o, "PodDisruptionBudget", "processor")["spec"].update(
        maxUnavailable=0)),
    (rules.lets_nodes_be_drained, lambda o: o.remove(named(o, "PodDisruptionBudget", "sink"))),
    (rules.lets_nodes_be_drained,
     lambda o: named(o, "PodDisruptionBudget", "sink")["spec"].pop("unhealthyPodEvictionPolicy")),
    (rules.spreads_what_there_is_more_of, lambda o: pod(workload("sink", o)).pop("topologySpreadConstraints")),
    (rules.selects_what_is_there,
     lambda o: workload("sink", o)["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/name": "auditor"})),
    (rules.selects_what_is_there, lambda o: workload("processor", o)["spec"].update(serviceName="nobody")),
    (rules.selects_what_is_there, lambda o: named(o, "Service", "redis")["spec"]["ports"][0].update(targetPort="x")),
    (rules.refers_to_what_is_there, lambda o: o.remove(named(o, "ConfigMap", "board"))),
    (rules.refers_to_what_is_there, lambda o: o.remove(named(o, "Secret", "s3"))),
    (rules.refers_to_what_is_there, lambda o: named(o, "ConfigMap", "rules")["metadata"].update(name="rules")),
    (rules.refers_to_what_is_there,
     lambda o: pod(workload("sink", o))["volumes"][1]["projected"]["sources"][1]["secret"].update(name="aws")),
    (rules.keeps_secrets_in_files, lambda o: named(o, "ConfigMap", "board")["data"].update(
        REDIS_URL="redis://user:password@redis.tillstream.svc:6379/0")),
    (rules.keeps_secrets_in_files, lambda o: named(o, "ConfigMap", "streams")["data"].update(KAFKA_SASL_PASSWORD="x")),
    (rules.keeps_secrets_in_files, lambda o: container("sink", o)["envFrom"].append({"secretRef": {"name": "aws"}})),
    (rules.keeps_secrets_in_files, lambda o: container("sink", o)["volumeMounts"].pop(1)),
    (rules.stops_in_its_time, lambda o: pod(workload("sink", o)).update(terminationGracePeriodSeconds=20)),
    (rules.stops_in_its_time, lambda o: named(o, "ConfigMap", "service")["data"].update(STOP_SECONDS="60")),
    (rules.stops_in_its_time, lambda o: pod(workload("generator", o)).pop("terminationGracePeriodSeconds") and
     pod(workload("generator", o)).update(terminationGracePeriodSeconds=10)),
    (rules.writes_the_board_from_one_place, lambda o: workload("processor", o)["spec"].update(replicas=2)),
    (rules.writes_the_board_from_one_place, lambda o: workload("processor", o)["spec"].update(
        podManagementPolicy="Parallel")),
    (rules.writes_the_board_from_one_place, lambda o: workload("processor", o)["spec"].pop(
        "persistentVolumeClaimRetentionPolicy")),
    (rules.writes_the_board_from_one_place, lambda o: container("processor", o)["env"][0].update(value="/state")),
    (rules.writes_the_board_from_one_place, lambda o: labels(workload("processor", o)["spec"]["volumeClaimTemplates"][0]
                                                             ).update({"app.kubernetes.io/version": "0.1.0"})),
    (rules.has_no_more_sinks_than_partitions, lambda o: workload("sink", o)["spec"].update(replicas=5)),
    (rules.has_no_more_sinks_than_partitions,
     lambda o: workload("sink", o)["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1)),
    (rules.has_no_more_sinks_than_partitions,
     lambda o: [each["data"].update(STREAM="kinesis") for each in of_kind(o, "ConfigMap") if "STREAM" in each["data"]]),
    (rules.sets_up_what_the_services_use, lambda o: named(o, "ConfigMap", "setup")["data"].update(S3_BUCKET="other")),
    (rules.sets_up_what_the_services_use, lambda o: workload("setup", o)["metadata"].update(name="setup")),
    (rules.sets_up_what_the_services_use, lambda o: container("setup", o).update(image="tillstream/cli:9.9.9")),
    (rules.sets_up_what_the_services_use, lambda o: workload("setup", o)["spec"].pop("ttlSecondsAfterFinished")),
    (rules.denies_by_default, lambda o: o.remove(policy("default-deny", o))),
    (rules.denies_by_default, lambda o: policy("default-deny", o)["spec"].update(egress=[{}])),
]  # fmt: skip


class TestARule:
    @pytest.mark.parametrize(
        ("rule", "change"),
        [pytest.param(*case, id=f"{number}-{getattr(case[0], '__name__', '')}") for number, case in enumerate(CHANGES)],
    )
    def test_says_what_is_wrong_when_it_is_broken(self, rule: rules.Rule, change: Change, local: list[Object]) -> None:
        assert list(rule(local)) == []
        change(local)
        assert list(rule(local))

    def test_is_broken_by_some_change_each_of_them(self) -> None:
        scaled = {rules.scales_with_the_password_that_the_sink_has}  # below: it needs another rendering
        assert {rule for rule, _ in CHANGES} | scaled == set(rules.RULES)

    @pytest.mark.parametrize(
        "change",
        [
            lambda o: of_kind(o, "ScaledObject")[0]["spec"]["triggers"][0].pop("authenticationRef"),
            lambda o: of_kind(o, "TriggerAuthentication")[0]["spec"]["secretTargetRef"][0].update(name="streams"),
            lambda o: of_kind(o, "TriggerAuthentication")[0]["spec"]["secretTargetRef"][0].update(key="password"),
            lambda o: of_kind(o, "TriggerAuthentication")[0]["spec"]["env"][0].update(name="USERNAME"),
        ],
    )
    def test_of_keda_sees_another_password(self, change: Change, render: Callable[[Combination], list[Object]]) -> None:
        objects = copy.deepcopy(render(Combination("overlays/aws", ("keda-scram",))))
        change(objects)
        assert list(rules.scales_with_the_password_that_the_sink_has(objects))

    @pytest.mark.parametrize(
        "change",
        [
            lambda o: of_kind(o, "ScaledObject")[0]["spec"].update(maxReplicaCount=5),
            lambda o: of_kind(o, "ScaledObject")[0]["spec"]["triggers"][0]["metadata"].update(consumerGroup="sink"),
            lambda o: workload("sink", o)["spec"].update(replicas=2),
        ],
    )
    def test_of_sinks_sees_what_keda_must_not_do(
        self, change: Change, render: Callable[[Combination], list[Object]]
    ) -> None:
        objects = copy.deepcopy(render(Combination("overlays/aws", ("keda-scram",))))
        change(objects)
        assert list(rules.has_no_more_sinks_than_partitions(objects))


class TestTheNetwork:
    def test_is_shut_without_a_policy_of_one_side(self, local: list[Object]) -> None:
        local.remove(policy("into-redis", local))
        assert network.allowed(local) < network.needed(local, KINDS)
        assert list(network.one_sided(local))

    def test_is_too_open_when_a_pod_has_a_label_that_its_settings_do_not_ask_for(self, local: list[Object]) -> None:
        workload("generator", local)["spec"]["template"]["metadata"]["labels"]["tillstream/redis"] = "client"
        assert network.allowed(local) - network.needed(local, KINDS) == {network.Edge("generator", "redis", 6379)}

    def test_is_too_narrow_when_an_address_changes_without_its_policy(self, local: list[Object]) -> None:
        for each in of_kind(local, "ConfigMap"):
            if "REDIS_URL" in each["data"]:
                each["data"]["REDIS_URL"] = "rediss://cache.example.com:6380/0"
        assert network.Edge("processor", network.OUTSIDE, 6380) in (
            network.needed(local, KINDS) - network.allowed(local)
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda o: workload("sink", o)["spec"].update(replicas="2"),
        lambda o: container("sink", o).update(livelinessProbe=container("sink", o).pop("livenessProbe")),
        lambda o: workload("sink", o).update(apiVersion="extensions/v1beta1"),
    ],
    ids=["a number as text", "a misspelt field", "an old version"],
)
def test_schemas_see(change: Change, local: list[Object]) -> None:
    change(local)
    with pytest.raises((kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)):
        fit(local)
