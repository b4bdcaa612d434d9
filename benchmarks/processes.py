"""What frontends and an engine process cost and give: restart times, memory, throughput against a single process.

    .venv/bin/python -m benchmarks.processes restart
    .venv/bin/python -m benchmarks.processes throughput --frontends 0 1 2

`restart` kills a process of an idle service with SIGKILL and waits for the log line that says its successor is ready.
`throughput` lets clients in a process of their own send one photo without pause, in rounds that visit every kind of
service in turn, so that a slower or faster moment of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.processes import children
from tests.servers import REPOSITORY, ServerProcess

_CLIENT = """
import http.client, sys, threading, time
host, port, seconds, clients, path = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
photo = open(path, "rb").read()
counts, times, lock = [0, 0], [], threading.Lock()

def ask():
    connection = http.client.HTTPConnection(host, port, timeout=60)
    while time.perf_counter() < end:
        started = time.perf_counter()
        connection.request("POST", "/v1/classify", photo)
        answer = connection.getresponse()
        answer.read()
        with lock:
            counts[answer.status != 200] += 1
            times.append(time.perf_counter() - started)

begin = time.perf_counter()
end = begin + seconds
threads = [threading.Thread(target=ask) for _ in range(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
times.sort()
print(counts[0] / (time.perf_counter() - begin), times[len(times) // 2], times[int(len(times) * 0.99)], counts[1])
"""


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def restart(runs: int) -> None:
    """Print how long processes take to come back."""
    with ServerProcess(frontends=2) as server:
        time.sleep(4.0)
        for role, pid in {"supervisor": server.process.pid, **children(server)}.items():
            print(f"{role:<12} {resident_megabytes(pid):6.0f} MB resident")
        for role in ("engine", "frontend-0"):
            seconds = [_restart_once(server, role) for _ in range(runs)]
            shown = ", ".join(f"{value:.2f}" for value in sorted(seconds))
            print(f"{role:<12} back after {median(seconds):.2f} s (median; {shown})")
            time.sleep(0.5)
        server.stop()


def _restart_once(server: ServerProcess, role: str) -> float:
    victim = children(server)[role]
    ready = "the engine is ready" if role == "engine" else "a frontend is ready"
    ends = len([line for line in server.log if ready in line])
    started = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    while True:
        time.sleep(0.005)
        if len([line for line in server.log if ready in line]) > ends:
            break
    elapsed = time.perf_counter() - started
    time.sleep(4.0)  # the next spare is there
    return elapsed


def throughput(kinds: list[int], photo: Path, clients: int, seconds: float, rounds: int) -> None:
    """Print images per second of services with so many frontends."""
    figures: dict[int, list[list[float]]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(ServerProcess(frontends=kind, log_level="warning")) for kind in kinds}
        for turn in range(rounds + 1):
            for kind, server in servers.items():
                figures[kind].append(load(server, photo, clients, seconds if turn else 1.0))
        for server in servers.values():
            server.stop()
    for kind, runs in figures.items():
        rates, middles, tails, failures = zip(*runs[1:], strict=True)
        print(
            f"frontends {kind}: {median(rates):6.1f} images/s (median of {rounds}), "
            f"p50 {median(middles) * 1000:.1f} ms, p99 {median(tails) * 1000:.1f} ms, failures {sum(failures):.0f}"
        )


def load(server: ServerProcess, photo: Path, clients: int, seconds: float) -> list[float]:
    """Images per second, p50 and p99 in seconds, and failures, of clients that send a photo without pause."""
    host, port = server.url.removeprefix("http://").split(":")
    command = [sys.executable, "-c", _CLIENT, host, port, str(seconds), str(clients), str(photo)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in run.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["restart", "throughput"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frontends", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--photo", type=Path, default=REPOSITORY.parent / "shared/data/imagenet-sample/000_tench.JPEG")
    chosen = parser.parse_args()
    if chosen.what == "restart":
        restart(chosen.runs)
    else:
        throughput(chosen.frontends, chosen.photo, chosen.clients, chosen.seconds, chosen.runs)


if __name__ == "__main__":
    main()
