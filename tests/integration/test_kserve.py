"""KServe's runtime and InferenceServices: a real server with the runtime's command line, on what KServe would mount.

What needs the package kserve runs where `make kserve` has made an environment for it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
import yaml
from tritonclient.utils import InferenceServerException

from tests import imagefiles
from tests.containers import Container, needs_containers
from tests.contract.test_docker import variables
from tests.integration.oip.grpc_clients import LISTENING, listening_at
from tests.manifests import KUSTOMIZE, check
from tests.servers import REPOSITORY, ServerProcess
from tests.small_model import small_folder
from tests.unit.models.tiny import LABELS, SIZE, tiny_model
from tests.waiting import NEVER

FOLDER = REPOSITORY / "deploy" / "kserve"
NAME = "summer-photos"  # of an InferenceService: a DNS label
PYTHON = REPOSITORY / "build" / "kserve" / "bin" / "python"
PHOTO = np.array([imagefiles.jpeg()], dtype=object)


needs_kserve = pytest.mark.skipif(not PYTHON.exists(), reason="the package kserve is not there; see `make kserve`")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


RUNTIME = read("runtime.yaml")["spec"]
(CONTAINER,) = RUNTIME["containers"]
SERVICES = {name: read(name)["spec"]["predictor"]["model"] for name in ("rest.yaml", "grpc.yaml")}


def onnx_file(folder: Path, name: str = "model.onnx") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(tiny_model().SerializeToString())


# What the storage initialiser leaves in /mnt/models: a folder of the bucket, or an archive that was unpacked there.
LAYOUTS = {
    "a file": onnx_file,
    "a file one level down": lambda folder: onnx_file(folder / "export", "net.onnx"),
    "a model folder": small_folder,
    "a model folder one level down": lambda folder: small_folder(folder / "small"),
    "a repository for Triton": lambda folder: onnx_file(folder / "net" / "1"),
}


def arguments() -> list[str]:
    """The container's arguments as KServe completes them, with free ports in place of 8080 and 9000."""
    completed = [text.replace("{{.Name}}", NAME) for text in CONTAINER["args"]]
    assert "--port=8080" in completed
    assert "--grpc-port=9000" in completed
    return [text.replace("=8080", "=0").replace("=9000", "=0") for text in completed]


@pytest.fixture
def pod() -> Iterator[Path]:
    """A folder outside of /tmp with the volumes of a pod."""
    place = REPOSITORY / "build"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@needs_containers
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_inference_service_answers_under_its_name(pod: Path, layout: str) -> None:
    LAYOUTS[layout](pod / "models")
    environment = {**variables(), "TESSERA_CACHE_DIR": "/mnt/cache", "TESSERA_BACKEND": "cpu"}
    environment["TESSERA_HOST"] = "127.0.0.1"
    # What Knative sets, and what Kubernetes makes of a Service called tessera.
    environment |= {"PORT": "9000", "TESSERA_PORT": "tcp://10.0.0.1:80", "TESSERA_GRPC_PORT": "tcp://10.0.0.1:9000"}
    with Container(pod, *arguments(), **environment) as server:
        url = server.wait_until_ready()
        address = next(found[1] for line in server.log if (found := LISTENING.search(line)))
        over_http(url)
        over_grpc(address)
        # As Kubernetes does it, in one of them: then it is a lame duck for five seconds.
        if layout == "a file":
            server.stop()


def over_http(url: str) -> None:
    with httpx.Client(base_url=url, timeout=NEVER) as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get(f"/v2/models/{NAME}/ready").status_code == 200
        described = client.get(f"/v2/models/{NAME}").json()
        assert described["name"] == NAME
        (given,) = described["inputs"]
        assert f'model="{NAME}"' in client.get("/metrics").text
        other = client.get("/v2/models/another-name")
        assert other.status_code == 404
        assert NAME in other.json()["error"]
    with triton_http.InferenceServerClient(url.removeprefix("http://"), connection_timeout=NEVER) as client:
        image = triton_http.InferInput(given["name"], PHOTO.shape, "BYTES")
        image.set_data_from_numpy(PHOTO)
        answer = client.infer(NAME, [image])
    assert answer.get_response()["model_name"] == NAME
    assert answer.as_numpy("output").shape == (1, len(LABELS))


def over_grpc(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_ready()
        assert client.get_model_metadata(NAME).name == NAME
        image = triton.InferInput("input", PHOTO.shape, "BYTES")
        image.set_data_from_numpy(PHOTO)
        answer = client.infer(NAME, [image])
        assert answer.get_response().model_name == NAME
        assert answer.as_numpy("output").shape == (1, len(LABELS))
        with pytest.raises(InferenceServerException, match=NAME):
            client.infer("another-name", [image])


def test_kubernetes_takes_the_pod() -> None:
    pod = {key: RUNTIME[key] for key in ("containers", "volumes")}
    labels = {"app": NAME}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    check({"Deployment": {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": spec}})


def test_the_container_is_as_the_charts() -> None:
    pod = yaml.safe_load((KUSTOMIZE / "base" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for key in ("resources", "volumeMounts"):
        assert CONTAINER[key] == container[key]
    assert RUNTIME["volumes"] == pod["volumes"]
    for key in ("livenessProbe", "readinessProbe"):
        expected = {**container[key], "httpGet": {**container[key]["httpGet"], "port": 8080}}
        assert CONTAINER[key] == expected
    of_the_pod = {key: pod["securityContext"][key] for key in pod["securityContext"] if not key.startswith("fsGroup")}
    assert CONTAINER["securityContext"] == {**of_the_pod, **container["securityContext"]}


def test_it_ends_within_the_time_that_a_pod_has() -> None:
    given = dict(text.removeprefix("--").split("=") for text in CONTAINER["args"] if "=" in text)
    assert float(given["lame-duck-seconds"]) + float(given["drain-seconds"]) + 10 <= 30


@pytest.mark.parametrize("name", SERVICES)
def test_the_services_fit_the_runtime(name: str) -> None:
    service = SERVICES[name]
    assert service["runtime"] == read("runtime.yaml")["metadata"]["name"]
    formats = [{"name": entry["name"], "version": entry["version"]} for entry in RUNTIME["supportedModelFormats"]]
    assert service["modelFormat"] in formats
    assert service["protocolVersion"] in RUNTIME["protocolVersions"]


def test_grpc_has_the_port_that_the_server_listens_on() -> None:
    (port,) = SERVICES["grpc.yaml"]["ports"]
    assert port["name"] == "h2c"
    assert f"--grpc-port={port['containerPort']}" in CONTAINER["args"]


def kserve(module: str, *arguments: str | Path) -> str:
    """What a module of these tests prints in the environment that has the package kserve."""
    command = [PYTHON, "-m", f"tests.{module}", *arguments]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=NEVER, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@needs_kserve
def test_kserves_models_take_the_files(tmp_path: Path) -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    told = kserve("kserve_models", *files).splitlines()
    assert [line.partition(": ")[0] for line in told] == [str(file) for file in files]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((FOLDER / "rest.yaml").read_text().replace("protocolVersion:", "protocol:"))
    with pytest.raises(AssertionError, match="has no protocol in V1beta1ModelSpec"):
        kserve("kserve_models", wrong)


@needs_kserve
def test_kserves_clients_are_answered(tmp_path: Path) -> None:
    onnx_file(tmp_path / "models")
    (tmp_path / "photo.jpg").write_bytes(imagefiles.jpeg())
    settings = {"model_path": tmp_path / "models", "cache_dir": tmp_path / "cache", "backend": "cpu"}
    with ServerProcess(model_name=NAME, grpc_port=0, **settings) as server:
        addresses = (server.url.removeprefix("http://"), listening_at(server))
        told = kserve("kserve_client", *addresses, NAME, str(SIZE), tmp_path / "photo.jpg").splitlines()
    sent = ["UINT8 plain", "FP32 plain", "UINT8 binary", "FP32 binary", "BYTES binary"]
    shape = f"1x{len(LABELS)}"
    assert told == [f"{protocol} {way} {shape}" for protocol in ("http", "grpc") for way in sent]
