"""A real Ray cluster of one node on the loopback interface, and the application of deploy/ray on it."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from tests.processes import command_of
from tests.servers import REPOSITORY, environment
from tests.waiting import NEVER, until

DEPLOY = REPOSITORY / "deploy" / "ray"
# Not 127.0.0.1, for which Ray takes the address of an interface that others reach.
HOST = "127.0.0.2"
_NAME = "tessera"


class Replica(NamedTuple):
    """An actor that answers requests."""

    id: str
    pid: int
    log: Path


def configure(proxy: dict[str, Any], *, cpus: int, autoscaling: dict[str, Any], **settings: object) -> dict[str, Any]:
    """What serve.yaml says, with changes.

    Args:
        proxy: Where Ray's proxy listens.
        cpus: Of a replica.
        autoscaling: Options of Ray's.
        settings: Settings.
    """
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
    found["http_options"] |= proxy
    (application,) = found["applications"]
    application["args"] |= settings
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"] = {"num_cpus": cpus}
    deployment["autoscaling_config"] |= autoscaling
    return found


class Cluster:
    """A running cluster; a context manager that stops it.

    Args:
        cpus: How many it may give away, whatever the machine has.

    Attributes:
        environment: In which programs find it.
        http: Port of Ray's proxy.
        first_port: Where replicas listen, as in serve.yaml.
    """

    def __init__(self, cpus: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ray-"))  # names of sockets must be short
        self._log = self._folder / "log"
        names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        command = [_program("ray"), "start", "--head", "--block"]
        command += ["--node-ip-address", HOST, "--dashboard-host", HOST, "--num-cpus", str(cpus)]
        command += ["--object-store-memory", str(128 * 1024 * 1024), "--temp-dir", str(self._folder)]
        command += [f"--{name}={port}" for name, port in ports.items()]
        self._token = secrets.token_hex(32)
        self.environment = environment(
            **private(self._token),
            PYTHONPATH=os.pathsep.join([str(DEPLOY), str(REPOSITORY)]),
            # Seconds; a test need not wait for ten.
            RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S="1",
        )
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.environment["RAY_ADDRESS"] = f"{HOST}:{ports['port']}"  # for what is run after it
        self._dashboard = f"http://{HOST}:{ports['dashboard-port']}"
        headers = {"Authorization": f"Bearer {self._token}"}
        self._api = httpx.Client(base_url=self._dashboard, headers=headers, timeout=NEVER)
        self.http, self.first_port = free_ports(2)
        until(self._is_up, pause=0.2)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.run("serve", "shutdown", "--yes", "--address", self._dashboard)
        self._process.send_signal(signal.SIGTERM)  # it ends what it has started
        self._process.wait(NEVER)
        self._api.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def deploy(self, *, autoscaling: dict[str, Any], **settings: object) -> None:
        """Deploy serve.yaml with changes, over whatever runs; see `wait_for_replicas`."""
        file = self._folder / "serve.yaml"
        place = {"host": HOST, "port": self.first_port}
        config = configure({"host": HOST, "port": self.http}, cpus=1, autoscaling=autoscaling, **place, **settings)
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.run("serve", "deploy", "--address", self._dashboard, str(file))

    def run(self, program: str, *arguments: str) -> str:
        """Run one of Ray's programs, or Python, to its end, which must be a good one; returns what it wrote."""
        command = [_program(program), *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=NEVER, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def client(self) -> httpx.Client:
        """A client of the application, through Ray's proxy."""
        return httpx.Client(base_url=f"http://{HOST}:{self.http}", timeout=NEVER)

    def upload_nothing(self) -> http.client.HTTPConnection:
        """A request through Ray's proxy whose body does not come."""
        connection = http.client.HTTPConnection(HOST, self.http, timeout=NEVER)
        connection.putrequest("POST", "/v1/classify")
        connection.putheader("Content-Length", "100")
        connection.endheaders()
        return connection

    def wait_for_replicas(self, count: int, *, without: list[Replica] | None = None) -> list[Replica]:
        """Wait until `count` replicas run, those of `without` not among them, and the application is as deployed."""
        gone = {replica.pid for replica in without or ()}
        until(lambda: self._steady(count, gone), pause=0.2)
        return self.replicas()

    def replicas(self) -> list[Replica]:
        """The replicas that run."""
        found = self._deployment().get("replicas", [])
        return [
            Replica(entry["replica_id"], entry["pid"], self._folder / f"session_latest/logs{entry['log_file_path']}")
            for entry in found
            if entry["state"] == "RUNNING"
        ]

    def message(self) -> str:
        """What Ray tells of the application: why it could not be deployed, where that is so."""
        told = [self._application(), self._deployment()]
        return " ".join(entry.get("message", "") for entry in told)

    def metrics(self) -> list[str]:
        """What each replica tells of itself, on the ports that Prometheus scrapes."""
        found = []
        for port in range(self.first_port, self.first_port + 8):
            try:
                found.append(httpx.get(f"http://{HOST}:{port}/metrics", timeout=NEVER).text)
            except httpx.ConnectError:
                continue
        return found

    def actors(self, name: str) -> list[int]:
        """The processes of actors whose title has a name in it."""
        return [
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and name in (title := command_of(int(process.name))) and title.startswith("ray::")
            if self._token in (process / "environ").read_text(errors="replace")
        ]

    def _steady(self, count: int, gone: set[int]) -> bool:
        application = self._application()
        assert application.get("status") != "DEPLOY_FAILED", application["message"]
        states = [entry["state"] for entry in self._deployment().get("replicas", [])]
        pids = {replica.pid for replica in self.replicas()}
        return application.get("status") == "RUNNING" and states == ["RUNNING"] * count and not pids & gone

    def _deployment(self) -> dict[str, Any]:
        found: dict[str, Any] = self._application().get("deployments", {}).get(_NAME, {})
        return found

    def _application(self) -> dict[str, Any]:
        answer = self._api.get("/api/serve/applications/")
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()["applications"].get(_NAME, {})
        return found

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return self._api.get("/api/serve/applications/").is_success
        except httpx.TransportError:
            return False


def private(token: str) -> dict[str, str]:
    """Variables of a cluster that takes orders from nobody else, and leaves nothing in the home directory."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    held = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


def _program(name: str) -> str:
    return sys.executable if name == "python" else str(Path(sys.executable).with_name(name))
