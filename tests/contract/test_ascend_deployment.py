"""The Ascend image, compose file and Kubernetes manifests: they agree with each other and with the program."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera.app.settings import Settings
from tests.contract.test_docker import Instruction, instructions
from tests.servers import REPOSITORY

MANIFESTS = sorted((REPOSITORY / "docker" / "kubernetes").glob("*.yaml"))
DEVICES = ["/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"]
RESOURCES = {"ascend310.yaml": "huawei.com/Ascend310", "ascend310p.yaml": "huawei.com/Ascend310P"}


def stage() -> list[Instruction]:
    """The Dockerfile's stage `ascend`."""
    found = instructions()
    starts = [index for index, instruction in enumerate(found) if instruction.word == "FROM"]
    (start,) = [index for index in starts if found[index].text.endswith(" AS ascend")]
    end = next((index for index in starts if index > start), len(found))
    return found[start:end]


def texts(word: str) -> list[str]:
    return [instruction.text for instruction in stage() if instruction.word == word]


def variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for text in texts("ENV") for pair in shlex.split(text))


def service() -> dict[str, Any]:
    parsed = yaml.safe_load((REPOSITORY / "docker" / "compose.ascend.yaml").read_text())
    found = parsed["services"]["tessera"]
    assert isinstance(found, dict)
    return found


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    deployment, exposed = yaml.safe_load_all(path.read_text())
    assert (deployment["kind"], exposed["kind"]) == ("Deployment", "Service")
    return deployment, exposed


def test_the_cpu_image_stays_the_default() -> None:
    last = [instruction.text for instruction in instructions() if instruction.word == "FROM"][-1]
    assert last == "python:${PYTHON}-slim"


def test_wheel_and_image_are_of_the_same_cann() -> None:
    froms = [instruction.text for instruction in instructions() if instruction.word == "FROM"]
    assert [text for text in froms if "CANN_IMAGE" in text] == [
        "${CANN_IMAGE} AS ascend-builder",
        "${CANN_IMAGE} AS ascend",
    ]
    (image,) = [
        i.text.partition("=")[2] for i in instructions() if i.word == "ARG" and i.text.startswith("CANN_IMAGE=")
    ]
    assert re.fullmatch(r"quay\.io/ascend/cann:\d+\.\d+\.\d+-(310p|910b)-[a-z]+[\d.]+-py3\.\d+", image)
    assert image in service()["build"]["args"]["CANN_IMAGE"]
    python = re.search(r"-py(3)\.(\d+)$", image)
    assert python is not None
    assert int(python[2]) >= 10, "what pyproject.toml asks for"


def test_the_images_settings_are_valid_and_mean_ascend() -> None:
    named = {name.removeprefix("TESSERA_").lower(): value for name, value in variables().items() if "TESSERA_" in name}
    settings = Settings(**named)
    assert settings.backend == "ascend"
    assert settings.host == "0.0.0.0"
    assert settings.drain_seconds < 10, "docker stop kills after 10 s"
    assert texts("USER") == ["10001:10001"]
    assert texts("STOPSIGNAL") == ["SIGTERM"]


def test_the_entry_is_in_the_image_and_hands_over_to_the_service(tmp_path: Path) -> None:
    entry = REPOSITORY / "docker" / "ascend-entry.sh"
    assert texts("ENTRYPOINT") == [f'["/opt/tessera/{entry.name}"]']
    assert any(f"docker/{entry.name}" in text for text in texts("COPY"))
    assert os.access(entry, os.X_OK)
    toolkit = tmp_path / "ascend" / "cann"
    toolkit.mkdir(parents=True)
    (toolkit / "set_env.sh").write_text("export FROM_CANN=yes\n")
    command = tmp_path / "tessera"
    command.write_text('#!/bin/sh\necho "$FROM_CANN $LD_LIBRARY_PATH $*"\n')
    command.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ASCEND_HOME": str(tmp_path / "ascend")}
    run = subprocess.run([entry, "serve", "--port", "1"], env=environment, capture_output=True, text=True, check=True)
    cann, libraries, *arguments = run.stdout.split()
    assert (cann, arguments) == ("yes", ["serve", "--port", "1"])
    assert libraries.split(":")[0] == "/usr/local/Ascend/driver/lib64"
    assert "exec tessera" in entry.read_text(), "signals reach the service"


def test_compose_passes_devices_driver_and_model() -> None:
    found = service()
    assert found["build"]["target"] == "ascend"
    assert os.path.samefile(REPOSITORY / "docker" / found["build"]["context"], REPOSITORY)
    assert set(DEVICES) <= set(found["devices"])
    assert any(re.fullmatch(r"/dev/davinci\d+", device) for device in found["devices"])
    mounts = {volume.rsplit(":", 2)[1]: volume for volume in found["volumes"]}
    assert {"/usr/local/Ascend/driver/lib64", "/etc/ascend_install.info", variables()["TESSERA_MODELS"]} <= set(mounts)
    assert all(volume.endswith(":ro") for volume in mounts.values())
    assert set(found["environment"]) <= {f"TESSERA_{name.upper()}" for name in Settings.model_fields}
    assert float(found["stop_grace_period"].removesuffix("s")) > float(found["environment"]["TESSERA_DRAIN_SECONDS"])


def test_compose_confines_the_service() -> None:
    found = service()
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert "privileged" not in found
    assert all(published.startswith("127.0.0.1:") for published in found["ports"])
    written = [variables()[name] for name in ("HOME", "TESSERA_CACHE_DIR", "ASCEND_PROCESS_LOG_PATH")]
    assert all(path.split("/")[1] == "tmp" for path in written)
    assert found["tmpfs"][0].startswith("/tmp:")


def test_there_is_a_manifest_for_each_resource() -> None:
    assert {path.name for path in MANIFESTS} == set(RESOURCES)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_pod_asks_for_its_npu(path: Path) -> None:
    deployment, _ = documents(path)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for kind in ("requests", "limits"):
        asked = {name: count for name, count in container["resources"][kind].items() if "huawei.com" in name}
        assert asked == {RESOURCES[path.name]: 1}, "extended resources: whole numbers, requests equal to limits"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_service_and_deployment_find_each_other(path: Path) -> None:
    deployment, exposed = documents(path)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["apiVersion"] == "apps/v1"
    assert exposed["apiVersion"] == "v1"
    assert deployment["spec"]["selector"]["matchLabels"] == labels == exposed["spec"]["selector"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert exposed["spec"]["ports"][0]["targetPort"] == port["name"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_probes_and_end_fit_the_service(path: Path) -> None:
    deployment, _ = documents(path)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/readyz"
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert set(environment) <= {f"TESSERA_{name.upper()}" for name in Settings.model_fields}
    sleep, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert pod["terminationGracePeriodSeconds"] > float(environment["TESSERA_DRAIN_SECONDS"]) + float(seconds)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_pod_is_confined_and_mounts_what_it_needs(path: Path) -> None:
    deployment, _ = documents(path)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == texts("USER")[0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == volumes
    assert {"/usr/local/Ascend/driver", "/tmp", variables()["TESSERA_MODELS"]} <= set(mounts)
    assert [path for path, mount in mounts.items() if not mount.get("readOnly")] == ["/tmp"]
