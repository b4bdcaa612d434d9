"""The servers that are compared: how each is started on its best settings, and where it answers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.process import free_port

PEERS = ("litserve", "mosec", "bentoml", "ray")
_PACKAGES = {"litserve": "litserve", "mosec": "mosec", "bentoml": "bentoml", "ray": "ray"}


@dataclass(frozen=True)
class Files:
    """What servers load.

    Attributes:
        model: Model folder of ours.
        cache: Cache folder in which it is built and calibrated.
        openvino: The same network, int8 by NNCF.
        environments: Folder with a virtual environment for each peer.
    """

    model: Path
    cache: Path
    openvino: Path
    environments: Path


@dataclass(frozen=True)
class Start:
    """How to start a server: command, environment variables, port, path that takes photos."""

    command: list[str]
    settings: dict[str, str]
    port: int
    path: str


def start(name: str, files: Files, *, cores: int, deadline: float) -> Start:
    """How to start a server on a free port.

    Args:
        name: One of PEERS, or "tessera", or "tessera-N" with N frontends. A peer's name may end with "-WxT" for W
            copies of the model with T threads each, in place of one with all cores.
        files: What it loads.
        cores: How many cores client and server share.
        deadline: Seconds after which no client of any phase waits; every peer's own time limit.
    """
    port = free_port()
    if name.partition("-")[0] == "tessera":
        return _ours(name, files, port)
    peer, _, copies = name.partition("-")
    workers, _, threads = copies.partition("x")
    binaries = files.environments / peer / "bin"
    settings = {
        "SERVING_MODEL": str(files.openvino),
        "SERVING_LABELS": str(files.model / "labels.txt"),
        "SERVING_PORT": str(port),
        "SERVING_THREADS": threads or str(cores),
        "SERVING_WORKERS": workers or "1",
        "SERVING_DECODERS": str(cores),
        "SERVING_DEADLINE": str(deadline),
        "RAY_DEDUP_LOGS": "0",
        "BENTOML_DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    module = f"benchmarks.serving.peers.{peer}_server"
    python = [str(binaries / "python"), "-m", module]
    if peer == "mosec":
        limit = str(round(deadline * 1000))
        flags = ["--address", "127.0.0.1", "--port", str(port), "--timeout", limit, "--log-level", "error"]
        return Start([*python, *flags], settings, port, "/inference")
    if peer == "bentoml":
        command = [str(binaries / "bentoml"), "serve", f"{module}:Api", "--host", "127.0.0.1", "--port", str(port)]
        return Start(command, settings, port, "/classify")
    return Start(python, settings, port, "/predict" if peer == "litserve" else "/classify")


def installed(name: str, files: Files) -> str | None:
    """Version of the package behind a server's name, or None when it is not installed."""
    peer = name.partition("-")[0]
    if peer == "tessera":
        return "this tree"
    python = files.environments / peer / "bin/python"
    if not python.exists():
        return None
    code = "import sys; from importlib.metadata import version; print(*(version(name) for name in sys.argv[1:]))"
    run = subprocess.run([str(python), "-c", code, _PACKAGES[peer], "openvino"], capture_output=True, text=True)
    return " with OpenVINO ".join(run.stdout.split()) if run.returncode == 0 else None


def _ours(name: str, files: Files, port: int) -> Start:
    command = [sys.executable, "-m", "tessera.app.cli", "serve", "--port", str(port), "--log-level", "warning"]
    command += ["--model-path", str(files.model), "--cache-dir", str(files.cache)]
    frontends = name.partition("-")[2]
    if frontends:
        command += ["--frontends", frontends]
    return Start(command, {}, port, "/v1/classify")
