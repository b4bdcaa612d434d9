"""What is measured of one running server: throughput, tail, overload, a lone request."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.serving.client import Job, Load, Record
from benchmarks.serving.process import REPOSITORY, ServerTree, busy_core_seconds
from benchmarks.serving.servers import Start

CLIENTS = 32
_BURST = 0.010  # seconds; answers of one batch come closer together
_PATIENCE = 180.0  # seconds for a server to start


@dataclass(frozen=True)
class Seconds:
    """How long each phase sends requests."""

    throughput: float = 4.0
    tail: float = 8.0
    overload: float = 10.0  # at its ends a batch and a half are not counted
    idle: float = 2.0

    @classmethod
    def scaled(cls, factor: float) -> Seconds:
        """All of them times `factor`."""
        default = cls()
        return cls(*(factor * part for part in (default.throughput, default.tail, default.overload, default.idle)))


@dataclass
class Run:
    """One visit to one server. Times in seconds.

    Attributes:
        throughput: Photos per second with 32 clients in closed loop.
        client_share: Cores that the load client took meanwhile.
        server_core: Core seconds that the server took per photo meanwhile.
        tail: Latencies at 70 % of its capacity, every request; infinite for one that failed.
        goodput: Photos per second answered within the deadline and while requests are sent, at 300 % of its capacity.
        refusals: Latencies of answers with another status than 200 there.
        lost: Requests there that got no answer before the deadline.
        idle: Round trip, decode, queue and compute of requests to an idle server, one at a time.
        labels: Photo index, label pairs of every answer.
        statuses: How many answers had which status, over all phases.
        foreign: Cores that neither client nor server took, mean over the visit: other people's work on this machine.
    """

    throughput: float
    client_share: float
    server_core: float
    tail: list[float]
    goodput: float
    refusals: list[float]
    lost: int
    idle: list[tuple[float, float, float, float]]
    labels: list[tuple[int, int]]
    statuses: dict[int, int]
    foreign: float


class Visit:
    """Sends load to one server.

    Args:
        start: The server.
        tree: Its processes.
        photos: What is sent.
    """

    def __init__(self, start: Start, tree: ServerTree, photos: list[Path]) -> None:
        self.tree = tree
        self._base = Job(start.port, start.path, [str(photo) for photo in photos], "closed", 1.0)

    def begin(self, seed: int) -> None:
        """Begin a round: `seed` is that of arrivals, and says where the rotation of photos begins."""
        self.tree.check_running()
        self.tree.resume()
        self._base = replace(self._base, seed=seed)
        send(replace(self._base, seconds=1.0, clients=CLIENTS))  # what it had to make up for after the pause
        self._settle()

    def end(self) -> None:
        """End a round."""
        self.tree.pause()

    def wait_until_ready(self) -> None:
        """Until it classifies a photo, and a little load has warmed it."""
        end = time.perf_counter() + _PATIENCE
        while time.perf_counter() < end:
            self.tree.check_running()
            # Long enough that there is an arrival whatever the seed.
            load = send(replace(self._base, kind="poisson", seconds=2.0, rate=4.0, deadline=5.0))
            if any(record.status == 200 for record in load.records):
                send(replace(self._base, seconds=3.0, clients=CLIENTS))
                self._settle()
                return
            time.sleep(0.5)
        raise SystemExit("a server did not answer")

    def throughput(self, seconds: float) -> tuple[Load, float]:
        """Closed loop; also the server's core seconds per answer."""
        core = self.tree.core_seconds()
        load = send(replace(self._base, seconds=seconds, clients=CLIENTS))
        core = self.tree.core_seconds() - core
        self._settle()
        return load, core / max(1, sum(record.status == 200 for record in load.records))

    def tail(self, rate: float, seconds: float) -> Load:
        """Poisson arrivals, no deadline."""
        load = send(replace(self._base, kind="poisson", seconds=seconds, rate=rate))
        self._settle()
        return load

    def overload(self, rate: float, seconds: float, deadline: float) -> Load:
        """Poisson arrivals of clients that leave at the deadline, and say so beforehand in our header."""
        headers = {"X-Request-Timeout-Ms": str(round(deadline * 1000))}
        job = replace(self._base, kind="poisson", seconds=seconds, rate=rate, deadline=deadline, headers=headers)
        load = send(job)
        self._settle()
        return load

    def idle(self, seconds: float) -> Load:
        """One request after the other."""
        return send(replace(self._base, seconds=seconds, clients=1))

    def _settle(self) -> None:
        """Until nothing is left of the load before: requests that come now are answered well, and those were before."""
        end = time.perf_counter() + _PATIENCE
        while time.perf_counter() < end:
            load = send(replace(self._base, kind="poisson", seconds=1.0, rate=8.0))
            if all(_ok(record) for record in load.records):
                return
        raise SystemExit("a server has not recovered from the load before")


class ForeignWork:
    """Watches what the machine does besides a server and its clients, from now on: other servers, people, its host."""

    def __init__(self, tree: ServerTree) -> None:
        self._tree = tree
        self._begun = self._now()

    def cores(self) -> float:
        """Mean cores since then."""
        wall, machine, server, client = (now - begun for now, begun in zip(self._now(), self._begun, strict=True))
        return (machine - server - client) / wall

    def _now(self) -> tuple[float, float, float, float]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # clients: they have ended, the servers run on
        own = time.process_time()
        client = own + ended.ru_utime + ended.ru_stime
        return time.perf_counter(), busy_core_seconds(), self._tree.core_seconds(), client


def measure(visit: Visit, seconds: Seconds, deadline: float, seed: int) -> Run:
    """All phases; rates follow from the throughput just measured."""
    visit.begin(seed)
    foreign = ForeignWork(visit.tree)
    busy, core = visit.throughput(seconds.throughput)
    capacity = rate_of(busy)
    if capacity == 0.0:
        raise SystemExit(f"Too few answers in {seconds.throughput:g} s to tell the throughput: use a larger --scale.")
    tail = visit.tail(0.7 * capacity, seconds.tail)
    over = visit.overload(3.0 * capacity, seconds.overload, deadline)
    idle = visit.idle(seconds.idle)
    others = foreign.cores()
    visit.end()
    records = [*busy.records, *tail.records, *over.records, *idle.records]
    statuses: dict[int, int] = {}
    for record in records:
        statuses[record.status] = statuses.get(record.status, 0) + 1
    in_time = [record for record in over.records if _ok(record) and record.seconds <= deadline]
    return Run(
        capacity,
        busy.core / busy.wall,
        core,
        [record.seconds if record.status == 200 else float("inf") for record in tail.records],
        sum(record.at <= seconds.overload for record in in_time) / seconds.overload,
        [record.seconds for record in over.records if record.status not in (0, 200)],
        sum(record.status == 0 for record in over.records),
        [(record.seconds, record.decode, record.queue, record.compute) for record in idle.records if _ok(record)][1:],
        [(record.photo, record.label) for record in records if _ok(record)],
        statuses,
        others,
    )


def rate_of(load: Load) -> float:
    """Answers per second between the ends of the first and the last batch, so that no batch counts by half."""
    times = sorted(record.at for record in load.records if _ok(record))
    if len(times) < 2:
        return 0.0
    first = next((i for i in range(len(times) - 1) if times[i + 1] - times[i] > _BURST), 0)
    return (len(times) - 1 - first) / (times[-1] - times[first])


def send(job: Job) -> Load:
    """Run the load client."""
    command = [sys.executable, "-m", "benchmarks.serving.client"]
    run = subprocess.run(command, cwd=REPOSITORY, input=json.dumps(asdict(job)), capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"the load client failed: {run.stderr[-2000:]}")
    load: dict[str, Any] = json.loads(run.stdout)
    return Load([Record(**record) for record in load["records"]], load["wall"], load["core"])


def _ok(record: Record) -> bool:
    return record.status == 200
