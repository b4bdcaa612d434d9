"""Builds the image and runs it as it is meant to be run: `make image-check`, some ten minutes.

Linux, root, and Debian's debootstrap, buildah, podman and runc; no daemon, no registry of images.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
from collections.abc import Sequence
from typing import Any

import httpx
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.image.building import IMAGE, base_name, build, make_base
from tests.image.engine import FOLDER, PODMAN, Container, EngineError, missing, output
from tests.servers import REPOSITORY
from tests.waiting import until

PHOTO = REPOSITORY / "app" / "web" / "src" / "static" / "church.jpg"
SBOM = "/usr/share/sbom/tessera.cdx.json"
STOP_SECONDS = 10  # what `docker stop` allows


def free_port() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


def run_container(*flags: str, model: str, sealed: Sequence[str], **variables: str) -> dict[str, str]:
    """Run the image until its health check passes and it is ready, use it, end it.

    Args:
        flags: Further flags of `podman run`.
        model: The name that the model is to be served under.
        sealed: Folders that its user must not be able to write to.
        variables: Settings.

    Returns:
        What the image has: `sbom` is its list of packages, `packages` what pip finds in it.
    """
    port = free_port()
    with Container(IMAGE, *flags, PORT=port, TESSERA_HOST="127.0.0.1", **variables) as container:
        try:
            until(container.is_healthy, pause=0.5)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                until(lambda: client.get("/readyz").status_code == 200, pause=1.0)
                use(client, model)
            assert container.execute("id", "-u", "-n").split() == ["tessera"]
            assert container.execute("id", "-u").strip() == "10001"
            for folder in sealed:
                refuses_to_write(container, folder)
            found = {
                "sbom": container.execute("cat", SBOM),
                "packages": container.execute("python", "-m", "pip", "list", "--format=json"),
            }
            assert container.stop(STOP_SECONDS) == 0, "SIGTERM ends it cleanly, in the time that `docker stop` allows"
        except BaseException:
            print(container.log())
            raise
        return found


def use(client: httpx.Client, model: str) -> None:
    """The page, a photo in both variants, and the name of the model."""
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for variant in ("baseline", "optimised"):
        answer = client.post("/v1/classify", content=PHOTO.read_bytes(), headers={"X-Model-Variant": variant})
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"][0]["predictions"][0]["label"] == "church"
    assert client.get(f"/v2/models/{model}").json()["name"] == model


def refuses_to_write(container: Container, folder: str) -> None:
    try:
        container.execute("touch", f"{folder}/written")
    except EngineError as error:
        assert "Read-only file system" in str(error)  # noqa: PT017 - a command's failure is the answer here
    else:
        raise AssertionError(f"{folder} can be written to")


def check_labels(revision: str) -> None:
    (image,) = json.loads(output([*PODMAN, "image", "inspect", IMAGE]))
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in image["Labels"].items()}
    version = re.findall(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)[0]
    assert labels["title"] == "Tessera"
    assert labels["description"]
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == version
    assert labels["revision"] == revision
    assert image["User"] == "10001:10001"


def check_sbom(sbom: str, packages: str) -> int:
    """It is CycloneDX 1.6 and names what pip finds in the image, no more, no less; returns how many."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom) is None
    listed: dict[str, Any] = json.loads(sbom)
    here = listed["metadata"]["component"]
    named = {(normal(part["name"]), part["version"]) for part in [here, *listed.get("components", [])]}
    found = {(normal(part["name"]), part["version"]) for part in json.loads(packages)}
    assert ("tessera-inference", here["version"]) in named
    assert named == found, named ^ found
    return len(named)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def mounted_models() -> str:
    """A folder with one model folder, as a volume has it."""
    folder = FOLDER / "models"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(REPOSITORY / "models" / "resnet50-imagenette", folder / "mine")
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--built", action="store_true", help="run the image of the last time, build nothing")
    arguments = parser.parse_args()
    if programs := missing():
        raise SystemExit(f"Not installed: {', '.join(programs)}. On Debian: apt-get install {' '.join(programs)}")
    if os.geteuid() != 0:
        raise SystemExit("debootstrap needs root: run it in a virtual machine or a sandbox of yours as root.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not arguments.built:
        print(f"base        {base_name()}: its stand-in of Debian's packages", flush=True)
        make_base()
        revision = build()
        check_labels(revision)
        print(f"image       {IMAGE}, labels say {revision[:12]}", flush=True)
    found = run_container(model="resnet50-imagenette", sealed=["/", "/opt/tessera", "/usr/local"])
    print("bundled     healthy, the page and a photo answered, ended with 0 on SIGTERM", flush=True)
    print(f"sbom        CycloneDX 1.6, {check_sbom(**found)} packages, as pip lists them", flush=True)
    run_container(
        f"--volume={mounted_models()}:/mnt/models:ro",
        "--tmpfs=/opt/tessera/cache:size=512m,mode=1777",  # as Kubernetes' emptyDir: empty, and writable for all
        model="photos",
        sealed=["/", "/mnt/models"],
        TESSERA_MODELS="/mnt/models",
        TESSERA_MODEL_NAME="photos",
    )
    print("/mnt/models the same with a mounted model, built into an empty cache", flush=True)


if __name__ == "__main__":
    main()
