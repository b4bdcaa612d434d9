"""The image out of the Dockerfile, over a base of Debian's packages that stands in for the one of a registry."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.image.engine import BUILDAH, FOLDER, output
from tests.servers import REPOSITORY

DOCKERFILE = REPOSITORY / "Dockerfile"
IMAGE = "localhost/tessera"
# The release of Debian whose Python is that version.
RELEASES = {"3.11": "bookworm", "3.13": "trixie"}
# What `python:X-slim` has besides a minimal system: pip, venv, Python's headers, `python` as a name.
PACKAGES = "ca-certificates,libpython3-dev,python-is-python3,python3,python3-pip,python3-venv"


def base_name() -> str:
    """The image that the last stage is built from, as the Dockerfile calls it."""
    text = DOCKERFILE.read_text()
    python = re.findall(r"^ARG PYTHON=(\S+)$", text, re.MULTILINE)[0]
    return str(re.findall(r"^FROM (\S+)$", text, re.MULTILINE)[-1]).replace("${PYTHON}", python)


def make_base() -> None:
    """Make the stand-in for the base image under the base image's name, unless it is there."""
    name = base_name()
    if subprocess.run([*BUILDAH, "inspect", "--type=image", name], capture_output=True, check=False).returncode == 0:
        return
    version = re.findall(r"\d+\.\d+", name)[0]
    if version not in RELEASES:
        raise SystemExit(f"No release of Debian is known to have Python {version}; add it to RELEASES in {__file__}.")
    root = FOLDER / "base"
    shutil.rmtree(root, ignore_errors=True)
    output(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASES[version], str(root)])
    # pip would refuse to install beside Debian's packages; the real base has none.
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for package in root.glob("var/cache/apt/archives/*.deb"):
        package.unlink()
    container = output([*BUILDAH, "from", "scratch"]).strip()
    output([*BUILDAH, "add", "--quiet", container, str(root), "/"])
    output([*BUILDAH, "config", "--cmd=python3", container])
    output([*BUILDAH, "commit", "--quiet", "--rm", container, name])
    shutil.rmtree(root)


def build() -> str:
    """Build the image; returns the commit that its label names."""
    revision = output(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]).strip()
    output(
        [
            *BUILDAH,
            "build",
            "--isolation=chroot",
            "--format=docker",  # OCI's knows no HEALTHCHECK
            "--pull-never",
            "--network=host",
            *pip_volumes(),
            f"--build-arg=REVISION={revision}",
            f"--tag={IMAGE}",
            f"--file={DOCKERFILE}",
            str(REPOSITORY),
        ]
    )
    output([*BUILDAH, "rmi", "--prune"])  # what the tag named before
    return revision


def pip_volumes() -> list[str]:
    """Mounts that give pip inside the build what pip has here: its configuration, and the files that this names."""
    lines = output([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    options = {key.rpartition(".")[2]: ast.literal_eval(value) for key, _, value in (s.partition("=") for s in lines)}
    configuration = FOLDER / "pip.conf"
    configuration.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))
    named = [Path(word) for value in options.values() for word in value.split() if word.startswith("/")]
    mounted = [f"{path}:{path}" for path in named if path.exists()]
    return [f"--volume={places}:ro" for places in [f"{configuration}:/etc/pip.conf", *mounted]]
