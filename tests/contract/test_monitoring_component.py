"""What a cluster's Prometheus and Grafana are given finds the pods that there are, and is what stands in the files."""

import json

import pytest

from support.manifests import Combination, Object, kubectl, named, of_kind, parsed, pod, pod_labels, rendered, selects
from support.prometheus import dashboards

pytestmark = pytest.mark.skipif(kubectl() is None, reason="no kubectl")

SERVICES = {"generator", "processor", "sink", "auditor"}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """The chain in a cluster, watched."""
    components = ("kafka", "redis", "s3", "dynamodb", "generator", "monitoring")
    return parsed(rendered(Combination("base", components).written(tmp_path_factory.mktemp("monitoring"))))


def test_each_service_is_scraped_at_the_port_that_it_names(objects: list[Object]) -> None:
    monitor = named(objects, "PodMonitor", "tillstream")["spec"]
    [endpoint] = monitor["podMetricsEndpoints"]
    scraped = {
        pod_labels(each)["app.kubernetes.io/name"]
        for each in of_kind(objects, "Deployment", "StatefulSet")
        if selects(monitor["selector"], pod_labels(each))
        and endpoint["port"] in {port["name"] for port in pod(each)["containers"][0]["ports"]}
    }
    assert scraped == SERVICES


def test_each_service_tells_a_prometheus_without_the_operator_where_it_is(objects: list[Object]) -> None:
    told = {
        pod_labels(each)["app.kubernetes.io/name"]: each["spec"]["template"]["metadata"].get("annotations", {})
        for each in of_kind(objects, "Deployment", "StatefulSet")
    }
    expected = {"prometheus.io/scrape": "true", "prometheus.io/port": "9464", "prometheus.io/path": "/metrics"}
    assert {name for name, annotations in told.items() if expected.items() <= annotations.items()} == SERVICES
    assert not [name for name in told.keys() - SERVICES if "prometheus.io/scrape" in told[name]]


def test_grafana_is_given_every_dashboard_as_it_is(objects: list[Object]) -> None:
    given = named(objects, "ConfigMap", "tillstream")
    assert given["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {name: json.loads(text) for name, text in given["data"].items()} == {
        f"{name}.json": dashboard for name, dashboard in dashboards().items()
    }
