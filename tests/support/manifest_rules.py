"""What every rendering of our manifests keeps to: a function for each rule, from objects to what is wrong with them."""

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from urllib.parse import urlsplit

from generator import delivery
from sink.__main__ import LEAVE_SECONDS
from sink.settings import SinkSettings
from support.manifests import (
    OURS,
    WORKLOADS,
    Object,
    app,
    containers,
    labels,
    of_kind,
    pod,
    pod_labels,
    secret_files,
    selects,
    settings,
    title,
)

Rule = Callable[[Sequence[Object]], Iterator[str]]
"""Says each thing that is wrong, with the object's name."""

RECOMMENDED = tuple(
    f"app.kubernetes.io/{name}" for name in ("name", "instance", "version", "component", "part-of", "managed-by")
)
NAMESPACE = "tillstream"
USER = 10001
METRICS_PORT = 9464

_HASHED = re.compile(r"-[0-9a-z]{10}$")
_UNITS = {"": Decimal(1), "m": Decimal("0.001"), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30)}

STOPPING_SECONDS = {
    "sink": SinkSettings.model_fields["stop_seconds"].default + LEAVE_SECONDS,
    "generator": delivery.FLUSH_SECONDS,
    "replay": delivery.FLUSH_SECONDS,
    "processor": 30.0,
}
"""What a stop in order takes at most. The processor's is one turn of its engine and a snapshot, while Redis may take
its 5 s to answer, some times over."""


def carries_the_recommended_labels(objects: Sequence[Object]) -> Iterator[str]:
    """All six, on each object and on each pod."""
    for each in objects:
        yield from (f"{title(each)} has no label {name}" for name in RECOMMENDED if not labels(each).get(name))
    for each in of_kind(objects, *WORKLOADS):
        yield from (f"{title(each)}: its pods have no {name}" for name in RECOMMENDED if not pod_labels(each).get(name))


def belongs_to_the_namespace_that_enforces_the_restricted_standard(objects: Sequence[Object]) -> Iterator[str]:
    """One namespace, which refuses what does not keep to the standard, and everything in it."""
    spaces = of_kind(objects, "Namespace")
    if [each["metadata"]["name"] for each in spaces] != [NAMESPACE]:
        yield f"there should be one namespace, {NAMESPACE}"
    for each in spaces:
        if labels(each).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{title(each)} does not enforce the restricted standard"
    for each in objects:
        if each["kind"] != "Namespace" and each["metadata"].get("namespace") != NAMESPACE:
            yield f"{title(each)} is not in {NAMESPACE}"


def pins_images(objects: Sequence[Object]) -> Iterator[str]:
    """A version or a digest; never what is latest today."""
    for each in of_kind(objects, *WORKLOADS):
        for container in containers(each):
            name, _, tag = container["image"].rpartition("/")[2].partition(":")
            if "@sha256:" not in container["image"] and tag in ("", "latest"):
                yield f"{title(each)}: image {name} has no fixed version"


def runs_restricted(objects: Sequence[Object]) -> Iterator[str]:
    """Pod Security Standard "restricted", a root file system that can't be written, a fixed user."""
    for each in of_kind(objects, *WORKLOADS):
        context = pod(each).get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser") or not context.get("runAsGroup"):
            yield f"{title(each)} does not say that and as whom it runs, not as root"
        if app(each) in OURS and context.get("runAsUser") != USER:
            yield f"{title(each)} does not run as {USER}, as its image does"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{title(each)} has no seccomp profile RuntimeDefault"
        for shared in ("hostNetwork", "hostPID", "hostIPC"):
            if pod(each).get(shared):
                yield f"{title(each)} has {shared}"
        for container in containers(each):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{title(each)}: {container['name']} may get more rights"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{title(each)}: {container['name']} can write its root file system"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{title(each)}: {container['name']} keeps capabilities"
            if own.get("privileged") or {"runAsUser", "runAsNonRoot"} & own.keys():
                yield f"{title(each)}: {container['name']} departs from its pod's user"


def bounds_what_pods_may_use(objects: Sequence[Object]) -> Iterator[str]:
    """Requests and limits of processor, memory and disk, and a size for each volume that is none of a disk's."""
    for each in of_kind(objects, *WORKLOADS):
        for container in containers(each):
            asked, most = (container.get("resources", {}).get(kind, {}) for kind in ("requests", "limits"))
            for what in ("cpu", "memory", "ephemeral-storage"):
                if what not in asked or what not in most:
                    yield f"{title(each)}: {container['name']} has no request or limit of {what}"
                elif quantity(asked[what]) > quantity(most[what]):
                    yield f"{title(each)}: {container['name']} requests more {what} than its limit"
        sizes = [volume["emptyDir"].get("sizeLimit") for volume in pod(each).get("volumes", ()) if "emptyDir" in volume]
        if None in sizes:
            yield f"{title(each)} has an emptyDir without a size"
        elif sum(map(quantity, sizes)) > quantity(pod(each)["containers"][0]["resources"]["limits"].get(
            "ephemeral-storage", "0")):  # fmt: skip
            yield f"{title(each)}: what its emptyDirs may hold is beyond its limit, so filling them evicts it"


def asks_pods_how_they_are(objects: Sequence[Object]) -> Iterator[str]:
    """Three probes for what runs on. Ours: alive by ``/live``, in service by ``/ready``, so that a processor whose
    Redis is away is out of service and not restarted."""
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        for container in containers(each):
            probes = {kind: container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")}
            missing = [kind for kind, probe in probes.items() if not probe]
            if missing:
                yield f"{title(each)}: {container['name']} has no probe of {', '.join(missing)}"
            elif app(each) in OURS:
                asked = [probe.get("httpGet") for probe in probes.values() if probe]
                paths = [found and found["path"] for found in asked]
                if paths != ["/live", "/live", "/ready"] or any(found["port"] != "metrics" for found in asked):
                    yield f"{title(each)}: {container['name']} is not asked /live, /live and /ready"
                if {"name": "metrics", "containerPort": METRICS_PORT} not in container.get("ports", ()):
                    yield f"{title(each)}: {container['name']} does not name its port of metrics"


def gives_a_start_its_time(objects: Sequence[Object]) -> Iterator[str]:
    """The processor binds its port once all it needs is there: up to CONNECT_SECONDS for the stream's servers, each of
    three streams, and Redis. It says itself what is missing, and ends; the probe comes after that."""
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        if app(each) not in OURS:
            continue
        probe = pod(each)["containers"][0].get("startupProbe", {})
        patience = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
        connect = float(settings(each, objects).get("CONNECT_SECONDS", 60))
        if patience < (5 if app(each) == "processor" else 1) * connect:
            yield f"{title(each)} is killed after {patience} s, while it still waits for what it needs"


def mounts_no_token(objects: Sequence[Object]) -> Iterator[str]:
    """A service account for each workload, none with a token, and no addresses of others in the environment: the
    variable KAFKA_PORT, of a Service "kafka", is a setting to Kafka's image."""
    accounts = {each["metadata"]["name"]: each for each in of_kind(objects, "ServiceAccount")}
    taken = [pod(each).get("serviceAccountName") for each in of_kind(objects, *WORKLOADS)]
    for each in of_kind(objects, *WORKLOADS):
        account = pod(each).get("serviceAccountName")
        if account not in accounts:
            yield f"{title(each)} has no service account of its own"
        elif taken.count(account) > 1:
            yield f"{title(each)} shares the service account {account}"
        elif accounts[account].get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {account} mounts tokens"
        if pod(each).get("automountServiceAccountToken") is not False:
            yield f"{title(each)} mounts a token"
        if pod(each).get("enableServiceLinks") is not False:
            yield f"{title(each)} has the addresses of services in its environment"


def lets_nodes_be_drained(objects: Sequence[Object]) -> Iterator[str]:
    """A budget for each workload that runs on, which allows one pod at a time and holds up no drain for ever."""
    budgets = of_kind(objects, "PodDisruptionBudget")
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        mine = [found for found in budgets if selects(found["spec"].get("selector"), pod_labels(each))]
        if len(mine) != 1:
            yield f"{title(each)} has {len(mine)} disruption budgets"
        elif mine[0]["spec"].get("maxUnavailable") != 1:
            yield f"{title(mine[0])} does not let one pod go"
        elif mine[0]["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{title(mine[0])}: a pod that is not ready holds up a drain"


def spreads_what_there_is_more_of(objects: Sequence[Object]) -> Iterator[str]:
    """Over zones and nodes, as far as there are some."""
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        if each["spec"].get("replicas", 2) < 2:
            continue
        spread = [found["topologyKey"] for found in pod(each).get("topologySpreadConstraints", ())
                  if selects(found.get("labelSelector"), pod_labels(each))]  # fmt: skip
        if sorted(spread) != ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]:
            yield f"{title(each)} is not spread over zones and nodes"


def selects_what_is_there(objects: Sequence[Object]) -> Iterator[str]:
    """Workloads select their own pods, services pods that have the port they name."""
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        for other in of_kind(objects, *WORKLOADS):
            taken = selects(each["spec"]["selector"], pod_labels(other))
            if taken is not (other is each):
                yield f"{title(each)} {'takes' if taken else 'does not take'} the pods of {title(other)}"
        if each["kind"] == "StatefulSet" and each["spec"].get("serviceName") not in {
            found["metadata"]["name"] for found in of_kind(objects, "Service")
        }:
            yield f"{title(each)} names no service that is there"
    for each in of_kind(objects, "Service"):
        behind = [found for found in of_kind(objects, "Deployment", "StatefulSet")
                  if selects({"matchLabels": each["spec"].get("selector", {"": ""})}, pod_labels(found))]  # fmt: skip
        ports = {port.get("name") for found in behind for container in containers(found)
                 for port in container.get("ports", ())}  # fmt: skip
        if len(behind) != 1 or any(port["targetPort"] not in ports for port in each["spec"]["ports"]):
            yield f"{title(each)} is nobody's"


def refers_to_what_is_there(objects: Sequence[Object]) -> Iterator[str]:
    """Maps, secrets and claims by their names, which end in a hash of what they hold: a change rolls the pods."""
    there = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for each in of_kind(objects, "ConfigMap", "Secret"):
        if "grafana_dashboard" in labels(each):
            continue  # Grafana looks for the label, and takes what is there: nobody refers to the name
        if not _HASHED.search(each["metadata"]["name"]):
            yield f"{title(each)}: what it holds is not in its name"
    for each in of_kind(objects, *WORKLOADS):
        wanted: list[tuple[str, str]] = [("ConfigMap", source["configMapRef"]["name"]) for container in containers(each)
                  for source in container.get("envFrom", ()) if "configMapRef" in source]  # fmt: skip
        optional: list[tuple[str, str]] = []
        for volume in pod(each).get("volumes", ()):
            if "secret" in volume:
                wanted.append(("Secret", volume["secret"]["secretName"]))
            for source in volume.get("projected", {}).get("sources", ()):
                secret = ("Secret", source["secret"]["name"])
                (optional.append if source["secret"].get("optional") else wanted.append)(secret)
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                if ("PersistentVolumeClaim", claim) not in there and claim not in _claims(objects):
                    yield f"{title(each)} wants the claim {claim}, which nobody makes"
        yield from (f"{title(each)} wants {kind} {name}, which is not there"
                    for kind, name in wanted if (kind, name) not in there)  # fmt: skip
        names = {name for _, name in optional}
        for found in of_kind(objects, "Secret"):
            if found["metadata"]["name"].rpartition("-")[0] in names:
                yield f"{title(each)} does not mount {title(found)} by its whole name"


def _claims(objects: Sequence[Object]) -> set[str]:
    """Of stateful sets, for their first pod."""
    return {
        f"{claim['metadata']['name']}-{each['metadata']['name']}-0"
        for each in of_kind(objects, "StatefulSet")
        for claim in each["spec"].get("volumeClaimTemplates", ())
    }


def keeps_secrets_in_files(objects: Sequence[Object]) -> Iterator[str]:
    """None in the environment, where whatever prints it prints them, and none in a ConfigMap."""
    for each in of_kind(objects, *WORKLOADS):
        for container in containers(each):
            if any("secretRef" in source for source in container.get("envFrom", ())) or any(
                "secretKeyRef" in found.get("valueFrom", {}) for found in container.get("env", ())
            ):
                yield f"{title(each)}: {container['name']} has a secret in its environment"
        if app(each) in OURS:
            folder = settings(each, objects).get("SECRETS_DIR")
            mounts = [found["mountPath"] for found in pod(each)["containers"][0]["volumeMounts"]
                      if found["name"] == "secrets" and found.get("readOnly")]  # fmt: skip
            if mounts != [folder]:
                yield f"{title(each)} does not mount its secrets at SECRETS_DIR"
    for each in of_kind(objects, "ConfigMap"):
        for name, text in each["data"].items():
            if "PASSWORD" in name or ("\n" not in text and urlsplit(text).password):
                yield f"{title(each)} holds a secret: {name}"


def stops_in_its_time(objects: Sequence[Object]) -> Iterator[str]:
    """What a stop in order takes fits before the kill."""
    for each in of_kind(objects, *WORKLOADS):
        needed = STOPPING_SECONDS.get(app(each), 0.0)
        if app(each) == "sink":
            needed = float(settings(each, objects).get("STOP_SECONDS", needed - LEAVE_SECONDS)) + LEAVE_SECONDS
        if pod(each).get("terminationGracePeriodSeconds", 30) < needed + (2 if needed else 0):
            yield f"{title(each)} is killed before its stop is done ({needed:.0f} s)"


def writes_the_board_from_one_place(objects: Sequence[Object]) -> Iterator[str]:
    """One processor, with its state on a volume that outlives it."""
    found = [each for each in of_kind(objects, *WORKLOADS) if app(each) == "processor"]
    if [each["kind"] for each in found] != ["StatefulSet"]:
        yield "there should be one processor, a StatefulSet"
        return
    [each] = found
    spec = each["spec"]
    if spec.get("replicas") not in (0, 1) or spec.get("podManagementPolicy", "OrderedReady") != "OrderedReady":
        yield f"{title(each)} may run twice"
    if spec.get("persistentVolumeClaimRetentionPolicy") != {"whenDeleted": "Retain", "whenScaled": "Retain"}:
        yield f"{title(each)} loses its state with its pod"
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())]
    mounts = [found["mountPath"] for found in pod(each)["containers"][0]["volumeMounts"] if found["name"] in claims]
    if not any(settings(each, objects)["RECOVERY_DIR"].startswith(f"{mount}/") for mount in mounts):
        yield f"{title(each)}: RECOVERY_DIR is on no volume of its own"
    if each["kind"] == "StatefulSet" and any(
        "app.kubernetes.io/version" in labels(claim) for claim in spec.get("volumeClaimTemplates", ())
    ):
        yield f"{title(each)}: a label of its claims changes with the version, and can't be changed"


def has_no_more_sinks_than_partitions(objects: Sequence[Object]) -> Iterator[str]:
    """A member without partitions is never ready; on Kinesis all shards are one sink's."""
    [each] = [found for found in of_kind(objects, "Deployment") if app(found) == "sink"]
    told = settings(each, objects)
    partitions = int(told["PARTITIONS"])
    scaled = of_kind(objects, "ScaledObject")
    strategy = each["spec"].get("strategy", {})
    if told["STREAM"] == "kinesis":
        if each["spec"].get("replicas") != 1 or strategy != {"type": "Recreate"} or scaled:
            yield f"{title(each)}: on Kinesis there may be one at a time"
        return
    if strategy.get("rollingUpdate", {}).get("maxSurge") != 0:
        yield f"{title(each)}: an update adds a member"
    if not scaled and not 1 <= each["spec"].get("replicas", 1) <= partitions:
        yield f"{title(each)}: more members than partitions"
    for found in scaled:
        if "replicas" in each["spec"]:
            yield f"{title(each)}: each apply undoes what KEDA did"
        if not 1 <= found["spec"]["minReplicaCount"] <= found["spec"]["maxReplicaCount"] <= partitions:
            yield f"{title(found)}: more members than partitions"
        groups = {f"{told.get('SINK_GROUP', 'sink')}-{lane}" for lane in ("archive-orders",)}
        for trigger in found["spec"]["triggers"]:
            known = trigger["metadata"]
            if known.get("consumerGroup") not in groups or known.get("topicFromEnv") != "ORDERS_STREAM":
                yield f"{title(found)} asks for the lag of a group that no sink is in"


def scales_with_the_password_that_the_sink_has(objects: Sequence[Object]) -> Iterator[str]:
    """KEDA's own way to the same Secret, and to the same user."""
    for each in of_kind(objects, "TriggerAuthentication"):
        [workload] = [found for found in of_kind(objects, "Deployment") if app(found) == "sink"]
        for target in each["spec"]["secretTargetRef"]:
            found = [secret for secret in of_kind(objects, "Secret") if secret["metadata"]["name"] == target["name"]]
            if not found or target["key"] not in found[0]["data"] or target["key"] not in secret_files(
                workload, objects
            ):  # fmt: skip
                yield f"{title(each)}: {target['name']}/{target['key']} is not the sink's"
        for source in each["spec"].get("env", ()):
            if not settings(workload, objects).get(source["name"]):
                yield f"{title(each)}: the sink has no {source['name']}"
    names = {each["metadata"]["name"] for each in of_kind(objects, "TriggerAuthentication")}
    for each in of_kind(objects, "ScaledObject"):
        [workload] = [found for found in of_kind(objects, "Deployment") if app(found) == "sink"]
        secure = settings(workload, objects).get("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT") == "SASL_SSL"
        for trigger in each["spec"]["triggers"]:
            if secure is not (trigger.get("authenticationRef", {}).get("name") in names):
                yield f"{title(each)} speaks to Kafka in another way than the sink"


def sets_up_what_the_services_use(objects: Sequence[Object]) -> Iterator[str]:
    """The setup Job is told the same as they, and its name is that of what it is told: a change is a new Job."""
    jobs = [each for each in of_kind(objects, "Job") if app(each) == "setup"]
    if len(jobs) != 1:
        yield "there should be one setup Job"
        return
    [job] = jobs
    told = settings(job, objects)
    if {source["configMapRef"]["name"] for source in pod(job)["containers"][0]["envFrom"]} != {job["metadata"]["name"]}:
        yield f"{title(job)} can't be applied again after a change: its name stays"
    if told.get("TILLSTREAM_IMAGE", "").rpartition(":")[2] != pod(job)["containers"][0]["image"].rpartition(":")[2]:
        yield f"{title(job)}: its image's version is not in what its name is made of"
    if not job["spec"].get("ttlSecondsAfterFinished") or not job["spec"].get("activeDeadlineSeconds"):
        yield f"{title(job)} is never removed, or never ends"
    for each in of_kind(objects, *WORKLOADS):
        if app(each) in OURS:
            other = settings(each, objects)
            yield from (f"{title(job)} is told another {name} than {title(each)}"
                        for name in told.keys() & other.keys() if told[name] != other[name])  # fmt: skip


def denies_by_default(objects: Sequence[Object]) -> Iterator[str]:
    """Nothing in, nothing out, for every pod."""
    for each in of_kind(objects, "NetworkPolicy"):
        spec = each["spec"]
        if spec["podSelector"] == {} and set(spec["policyTypes"]) == {"Ingress", "Egress"}:
            if "ingress" in spec or "egress" in spec:
                yield f"{title(each)} allows something to all"
            return
    yield "there is no policy that denies by default"


def quantity(text: object) -> Decimal:
    """What ``250m``, ``1Gi`` or 2 is, as a number."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    assert found, text
    return Decimal(found[1]) * _UNITS[found[2]]


RULES: tuple[Rule, ...] = (
    carries_the_recommended_labels,
    belongs_to_the_namespace_that_enforces_the_restricted_standard,
    pins_images,
    runs_restricted,
    bounds_what_pods_may_use,
    asks_pods_how_they_are,
    gives_a_start_its_time,
    mounts_no_token,
    lets_nodes_be_drained,
    spreads_what_there_is_more_of,
    selects_what_is_there,
    refers_to_what_is_there,
    keeps_secrets_in_files,
    stops_in_its_time,
    writes_the_board_from_one_place,
    has_no_more_sinks_than_partitions,
    scales_with_the_password_that_the_sink_has,
    sets_up_what_the_services_use,
    denies_by_default,
)
