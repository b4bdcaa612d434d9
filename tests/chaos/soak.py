"""`make soak`: a million requests, or an hour, of mixed load. Exit code 0 when all was right and memory level."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.chaos.clients import Report
from tests.chaos.mixture import CONNECTIONS, SEED, Mixture
from tests.processes import children
from tests.servers import ServerProcess
from tests.small_model import small_folder

SLOPE_LIMIT = 1.0  # MB per 100,000 requests
_EVERY = 5.0  # seconds between two looks at memory
_WARM = 0.2  # of the samples, at the beginning: caches and allocators fill up to their size


class Memory:
    """Resident memory of all processes of a server, against how many requests they have had."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.samples: list[tuple[int, dict[str, float]]] = []

    def look(self, requests: int) -> dict[str, float]:
        """Take a sample: MB by role."""
        roles = {"parent": self._server.process.pid, **children(self._server)}
        sample = {role: resident(pid) for role, pid in roles.items()}
        self.samples.append((requests, sample))
        return sample

    def slopes(self) -> dict[str, float]:
        """MB per 100,000 requests by role and in "all", by least squares over what was seen once warm."""
        late = self.samples[int(_WARM * len(self.samples)) :]
        counts = np.array([count for count, _ in late]) / 100_000
        rows = {role: [sample.get(role, 0.0) for _, sample in late] for role in late[-1][1]}
        rows["all"] = [sum(sample.values()) for _, sample in late]
        return {role: float(np.polyfit(counts, row, 1)[0]) for role, row in rows.items()}


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1e3 if found else 0.0


def soak(server: ServerProcess, *, clients: int, requests: int, seconds: float, seed: int) -> tuple[Report, Memory]:
    """Send mixed load until either limit is reached."""
    memory = Memory(server)
    begun = shown = time.monotonic()
    with Mixture(server.url, clients, seed) as load:
        while (done := load.report.seen.total()) < requests and time.monotonic() < begun + seconds:
            sample = memory.look(done)
            if time.monotonic() > shown + 60:
                shown = time.monotonic()
                minutes, counts = (shown - begun) / 60, dict(load.report.seen)
                print(f"{minutes:.0f} min, {done} requests, {sum(sample.values()):.1f} MB, {counts}", flush=True)
            time.sleep(min(_EVERY, seconds / 10))
    return load.report, memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--frontends", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        model = small_folder(Path(place) / "small", seed=SEED)
        with ServerProcess(
            frontends=chosen.frontends, log_level="error", model_path=model, max_connections=CONNECTIONS
        ) as server:
            report, memory = soak(
                server,
                clients=chosen.clients,
                requests=chosen.requests,
                seconds=chosen.minutes * 60,
                seed=chosen.seed,
            )
            code = server.stop()
    slopes = memory.slopes()
    print("requests: " + ", ".join(f"{count} {what}" for what, count in sorted(report.seen.items())))
    print("MB at first and last: " + ", ".join(f"{sum(memory.samples[at][1].values()):.1f}" for at in (0, -1)))
    print("MB per 100,000 requests: " + ", ".join(f"{role} {slope:+.2f}" for role, slope in slopes.items()))
    print(f"exit code of the service: {code}")
    for problem in report.problems[:20]:
        print(problem)
    return 1 if report.problems or report.seen["lost"] or slopes["all"] > SLOPE_LIMIT or code != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
