"""The Helm chart, rendered by Helm itself: valid for Kubernetes, and true of the service that it runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera.app.settings import Settings
from tests.contract.test_docker import variables
from tests.servers import REPOSITORY

pytest.importorskip("helm_python", reason="the package helm-python-sdk has no wheel for this machine")

import helm_python as helm

from tests.manifests import CHART, Objects, check, render

EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example/tessera", "tag": "1"},
    "imagePullSecrets": [{"name": "registry"}],
    "cpus": 4,
    "memory": "4Gi",
    "model": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}, "path": "mine", "name": "photos"},
    "settings": {"page": False, "max_upload_bytes": 536870912, "stuck_seconds": 90.5, "default_variant": "baseline"},
    "lameDuckSeconds": 10,
    "drainSeconds": 60,
    "service": {"headless": True},
    "autoscaling": {"by": "hpa", "min": 3, "max": 30, "demand": 0.55},
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"from": [{"namespaceSelector": {}}], "egress": [{"ports": [{"port": 4318}]}]},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "cpu", "operator": "Exists"}],
}
CASES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "everything": EVERYTHING,
    "keda": {**EVERYTHING, "autoscaling": {"by": "keda"}, "grpc": False},
    "little": {"networkPolicy": {"enabled": False}},
}


@pytest.fixture(scope="module", params=CASES)
def objects(request: pytest.FixtureRequest) -> Objects:
    return render(CASES[request.param])


def pod(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return found


def environment(objects: Objects) -> dict[str, str]:
    (container,) = pod(objects)["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_helm_finds_no_fault() -> None:
    found = helm.lint(CHART, strict=True)
    assert found["errors"] == []
    assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


def test_kubernetes_takes_every_object(objects: Objects) -> None:
    check(objects)


def test_objects_are_there_when_they_are_asked_for() -> None:
    always = {"Deployment", "Service", "PodDisruptionBudget"}
    monitored = {"ServiceMonitor", "PrometheusRule"}
    assert render(CASES["little"]).keys() == always
    assert render({}).keys() == always | {"NetworkPolicy"}
    assert render(EVERYTHING).keys() == always | monitored | {"NetworkPolicy", "HorizontalPodAutoscaler"}
    assert render(CASES["keda"]).keys() == always | monitored | {"NetworkPolicy", "ScaledObject"}


def test_the_service_takes_its_settings(objects: Objects) -> None:
    given = {name.removeprefix("TESSERA_").lower(): value for name, value in environment(objects).items()}
    settings = Settings(**given)
    waits = settings.lame_duck_seconds + settings.drain_seconds
    assert pod(objects)["terminationGracePeriodSeconds"] > waits
    assert settings.lame_duck_seconds > 0, "a pod gets traffic for a moment after SIGTERM"
    (container,) = pod(objects)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports.pop("http") == settings.port
    assert ports == ({} if settings.grpc_port is None else {"grpc": settings.grpc_port})
    assert pod(objects)["enableServiceLinks"] is False


def test_values_reach_the_service_as_they_were_written() -> None:
    expected = {
        "TESSERA_MODELS": "/mnt/models",
        "TESSERA_MODEL_PATH": "mine",
        "TESSERA_MODEL_NAME": "photos",
        "TESSERA_PAGE": "false",
        "TESSERA_MAX_UPLOAD_BYTES": "536870912",
        "TESSERA_STUCK_SECONDS": "90.5",
        "TESSERA_DEFAULT_VARIANT": "baseline",
    }
    assert expected.items() <= environment(render(EVERYTHING)).items()


def test_cpus_are_whole_and_requests_are_limits(objects: Objects) -> None:
    (container,) = pod(objects)["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert int(container["resources"]["limits"]["cpu"]) >= 2


def test_the_root_is_read_only_and_what_is_written_to_is_a_volume(objects: Objects) -> None:
    (container,) = pod(objects)["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod(objects)["securityContext"]["runAsUser"] == 10001
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    writable = {mount["mountPath"] for mount in mounts.values() if not mount.get("readOnly")}
    assert writable == {variables()["TESSERA_CACHE_DIR"], "/tmp"}
    assert mounts.keys() == {volume["name"] for volume in pod(objects)["volumes"]}
    if "models" in mounts:
        assert mounts["models"]["mountPath"] == environment(objects)["TESSERA_MODELS"]


def test_probes_ask_what_they_should(objects: Objects) -> None:
    (container,) = pod(objects)["containers"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert "startupProbe" not in container, "it would end a pod whose model takes long to build"


def test_everything_selects_the_same_pods(objects: Objects) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    chosen = objects["Deployment"]["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= labels.items()
    assert objects["Service"]["spec"]["selector"] == chosen
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == chosen
    if "NetworkPolicy" in objects:
        assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == chosen
    ports = {port["name"]: port["targetPort"] for port in objects["Service"]["spec"]["ports"]}
    (container,) = pod(objects)["containers"]
    assert ports == {port["name"]: port["name"] for port in container["ports"]}
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        if kind in objects:
            assert objects[kind]["spec"]["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
            assert "replicas" not in objects["Deployment"]["spec"], "or each upgrade would undo what it did"


def test_replicas_follow_the_demand() -> None:
    hpa = render(EVERYTHING)["HorizontalPodAutoscaler"]["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (3, 30)
    (metric,) = hpa["metrics"]
    assert metric["pods"]["metric"]["name"] == "tessera_demand_ratio"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "550m"}
    keda = render(CASES["keda"])["ScaledObject"]["spec"]
    (trigger,) = keda["triggers"]
    assert trigger["metricType"] == "AverageValue"
    assert trigger["metadata"]["query"] == 'sum(tessera_demand_ratio{namespace="prod", service="tessera"})'
    assert float(trigger["metadata"]["threshold"]) == 0.6


def test_prometheus_scrapes_the_service_under_the_job_of_the_rules(tmp_path: Path) -> None:
    objects = render(EVERYTHING)
    monitor, labels = objects["ServiceMonitor"]["spec"], objects["Service"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["jobLabel"]] == "tessera"
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in objects["Service"]["spec"]["ports"]]
    rules = objects["PrometheusRule"]["spec"]
    assert rules == yaml.safe_load((REPOSITORY / "docker" / "alerts.yml").read_text())
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert objects[kind]["metadata"]["labels"]["release"] == "prometheus"
    if shutil.which("promtool") is not None:
        (tmp_path / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
        subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"cpus": 1.5}, "cpus"),
        ({"replicaCount": 3}, "replicaCount"),
        ({"memory": "2G"}, "memory"),
        ({"model": {"name": "two words"}}, "name"),
        ({"autoscaling": {"by": "vpa"}}, "by"),
        ({"settings": {"port": 80}}, "settings.port is the chart's own affair"),
        ({"settings": {"drain_seconds": 80}}, "settings.drain_seconds is the chart's own affair"),
        ({"autoscaling": {"min": 5, "max": 2}}, "autoscaling.min (5) is larger than autoscaling.max (2)"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], word: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        render(values)
    assert word in str(refused.value)


def test_the_notes_name_what_was_installed() -> None:
    with helm.Chart.load(CHART) as chart:
        notes = chart.render({}, name="photos", namespace="prod")["tessera/templates/NOTES.txt"]
    assert "kubectl --namespace prod port-forward service/photos-tessera 8000" in notes
    assert "{{" not in notes
