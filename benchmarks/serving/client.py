"""The load client, a process of its own: reads a job as JSON from stdin, writes what happened as JSON to stdout.

Answers are parsed after the load is over, and the process says how much of a core it took while the load ran.
Latency of a Poisson arrival counts from when it was due, so that a client or server that falls behind does not hide it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.serving.connection import LOST, Answer, Connection, connect

GIVE_UP = 60.0  # seconds that a client without a deadline waits


@dataclass(frozen=True)
class Job:
    """What to send.

    Attributes:
        port: Of 127.0.0.1.
        path: Path of the request.
        photos: Files, sent in rotation.
        kind: "closed": `clients` each send the next when they have an answer; "poisson": independent arrivals.
        seconds: How long requests are sent. Closed: those unanswered then do not count.
        clients: Closed: how many.
        rate: Poisson: requests per second.
        deadline: Seconds after which a client leaves; None: very late.
        headers: Further headers.
        seed: Of the arrivals.
    """

    port: int
    path: str
    photos: list[str]
    kind: Literal["closed", "poisson"]
    seconds: float
    clients: int = 1
    rate: float = 1.0
    deadline: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Record:
    """One request: index of its photo, when it ended, how long it took from when it was due, status, label, timing.

    All times in seconds; `at` from the load's start; decode, queue and compute as the answer says.
    """

    photo: int
    at: float
    seconds: float
    status: int
    label: int = -1
    decode: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    batch: int = 0


@dataclass(frozen=True)
class Load:
    """What happened: every request, wall seconds, the client's core seconds."""

    records: list[Record]
    wall: float
    core: float


class Client:
    """Sends a job's requests."""

    def __init__(self, job: Job) -> None:
        self._job = job
        extra = "".join(f"{name}: {value}\r\n" for name, value in job.headers.items())
        self._messages = []
        for photo in job.photos:
            data = Path(photo).read_bytes()
            head = (
                f"POST {job.path} HTTP/1.1\r\nHost: 127.0.0.1:{job.port}\r\nContent-Type: image/jpeg\r\n"
                f"{extra}Content-Length: {len(data)}\r\n\r\n"
            )
            self._messages.append(head.encode() + data)
        self._next = job.seed * 7919 % len(self._messages)
        self._seen: list[tuple[int, float, Answer]] = []  # photo, when it was due, answer
        self._idle: list[Connection] = []

    async def run(self) -> Load:
        """Send everything."""
        started, core = time.perf_counter(), time.process_time()
        if self._job.kind == "closed":
            await self._closed(started + self._job.seconds)
        else:
            await self._poisson(started)
        wall, core = time.perf_counter() - started, time.process_time() - core
        return Load([_record(started, *seen) for seen in self._seen], wall, core)

    async def _closed(self, end: float) -> None:
        tasks = [asyncio.ensure_future(self._one_after_another(end)) for _ in range(self._job.clients)]
        await asyncio.wait(tasks, timeout=end - time.perf_counter())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one_after_another(self, end: float) -> None:
        while time.perf_counter() < end:
            await self._ask(time.perf_counter())

    async def _poisson(self, started: float) -> None:
        arrivals = random.Random(self._job.seed)
        tasks, due = [], started
        while True:
            due += arrivals.expovariate(self._job.rate)
            if due > started + self._job.seconds:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.ensure_future(self._ask(due)))
        await asyncio.gather(*tasks)

    async def _ask(self, due: float) -> None:
        photo, self._next = self._next, (self._next + 1) % len(self._messages)
        left = due + (self._job.deadline or GIVE_UP) - time.perf_counter()
        connection = await self._connection()
        if connection is None:
            self._seen.append((photo, due, Answer(LOST, b"", time.perf_counter())))
            return
        try:
            answer = await asyncio.wait_for(connection.request(self._messages[photo]), left)
        except asyncio.TimeoutError:
            connection.close()
            answer = Answer(LOST, b"", time.perf_counter())
        self._seen.append((photo, due, answer))
        if connection.usable:
            self._idle.append(connection)

    async def _connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return await connect("127.0.0.1", self._job.port)


def _record(started: float, photo: int, due: float, answer: Answer) -> Record:
    at, seconds = answer.arrived - started, answer.arrived - due
    if answer.status != 200:
        return Record(photo, at, seconds, answer.status)
    try:
        result = json.loads(answer.body)["results"][0]
        timing = result["timing"]
        return Record(
            photo,
            at,
            seconds,
            200,
            result["predictions"][0]["index"],
            timing["decode_ms"] / 1e3,
            timing["queue_ms"] / 1e3,
            timing["compute_ms"] / 1e3,
            timing["batch_size"],
        )
    except (ValueError, LookupError, TypeError):
        return Record(photo, at, seconds, 200)


def main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    client = Client(Job(**job))
    gc.disable()
    load = asyncio.run(client.run())
    json.dump(asdict(load), sys.stdout)


if __name__ == "__main__":
    main()
