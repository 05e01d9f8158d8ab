"""Objects that are not Kubernetes' own, as far as our manifests use them: what is misspelt does not fit."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(_Strict):
    name: str
    namespace: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Target(_Strict):
    name: str


class _Policy(_Strict):
    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(ge=1)]
    periodSeconds: Annotated[int, Field(ge=1, le=1800)]  # noqa: N815 (Kubernetes' own spelling, here and below)


class _Direction(_Strict):
    stabilizationWindowSeconds: Annotated[int, Field(ge=0, le=3600)]  # noqa: N815
    policies: list[_Policy]


class _Behavior(_Strict):
    scaleUp: _Direction  # noqa: N815
    scaleDown: _Direction  # noqa: N815


class _Hpa(_Strict):
    behavior: _Behavior


class _Advanced(_Strict):
    horizontalPodAutoscalerConfig: _Hpa  # noqa: N815


class _Kafka(_Strict):
    """https://keda.sh/docs/2.17/scalers/apache-kafka/; values are texts, whatever they say."""

    bootstrapServersFromEnv: str  # noqa: N815
    consumerGroup: str  # noqa: N815
    topicFromEnv: str  # noqa: N815
    lagThreshold: Annotated[str, Field(pattern="^[0-9]+$")]  # noqa: N815
    offsetResetPolicy: Literal["latest", "earliest"]  # noqa: N815
    allowIdleConsumers: Literal["true", "false"]  # noqa: N815
    sasl: Literal["none", "plaintext", "scram_sha256", "scram_sha512"] = "none"
    tls: Literal["enable", "disable"] = "disable"


class _Trigger(_Strict):
    type: Literal["kafka"]
    metadata: _Kafka
    authenticationRef: _Target | None = None  # noqa: N815


class _ScaledSpec(_Strict):
    scaleTargetRef: _Target  # noqa: N815
    minReplicaCount: int  # noqa: N815
    maxReplicaCount: int  # noqa: N815
    pollingInterval: int  # noqa: N815
    cooldownPeriod: int  # noqa: N815
    advanced: _Advanced
    triggers: list[_Trigger]


class ScaledObject(_Strict):
    """KEDA's."""

    apiVersion: Literal["keda.sh/v1alpha1"]  # noqa: N815
    kind: Literal["ScaledObject"]
    metadata: Metadata
    spec: _ScaledSpec


class _FromEnv(_Strict):
    parameter: str
    name: str
    containerName: str  # noqa: N815


class _FromSecret(_Strict):
    parameter: str
    name: str
    key: str


class _AuthenticationSpec(_Strict):
    env: list[_FromEnv] = []
    secretTargetRef: list[_FromSecret]  # noqa: N815


class TriggerAuthentication(_Strict):
    """KEDA's."""

    apiVersion: Literal["keda.sh/v1alpha1"]  # noqa: N815
    kind: Literal["TriggerAuthentication"]
    metadata: Metadata
    spec: _AuthenticationSpec


_Duration = Annotated[str, Field(pattern="^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", min_length=2)]


class _Requirement(_Strict):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []


class _Selector(_Strict):
    matchExpressions: list[_Requirement]  # noqa: N815


class _Relabeling(_Strict):
    sourceLabels: list[str] = []  # noqa: N815
    targetLabel: str  # noqa: N815
    replacement: str = "$1"


class _Endpoint(_Strict):
    port: str
    path: str
    interval: _Duration
    scrapeTimeout: _Duration  # noqa: N815
    relabelings: list[_Relabeling]


class _MonitorSpec(_Strict):
    selector: _Selector
    podMetricsEndpoints: list[_Endpoint]  # noqa: N815


class PodMonitor(_Strict):
    """The Prometheus operator's."""

    apiVersion: Literal["monitoring.coreos.com/v1"]  # noqa: N815
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: _MonitorSpec


class _Recording(_Strict):
    record: Annotated[str, Field(pattern="^[a-z_]+:[a-z_]+:[a-z_]+$")]
    expr: str


class _Alert(_Strict):
    alert: str
    expr: str
    for_: Annotated[_Duration | None, Field(alias="for")] = None
    labels: dict[str, str]
    annotations: dict[str, str]


class _Group(_Strict):
    name: str
    rules: list[_Recording | _Alert]


class _RuleSpec(_Strict):
    groups: list[_Group]


class PrometheusRule(_Strict):
    """The Prometheus operator's."""

    apiVersion: Literal["monitoring.coreos.com/v1"]  # noqa: N815
    kind: Literal["PrometheusRule"]
    metadata: Metadata
    spec: _RuleSpec


MODELS: dict[tuple[str, str], type[BaseModel]] = {
    ("keda.sh/v1alpha1", "ScaledObject"): ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): TriggerAuthentication,
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRule,
}
"""By API version and kind."""
