"""A simulated server: one engine, a few decoders, the real queue or a rival, under a given stream of requests.

Discrete events, no threads, no sleeping: the clock jumps from event to event, so an hour of traffic takes seconds. The
times of batches and of decoding are given (`Server`) and vary at random.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import numpy as np

from tessera.app.errors import RequestError
from tessera.app.scheduling.queue import ImageQueue
from tessera.app.scheduling.ticket import Batch, Outcome, Priority, Ticket

VARIANT = "optimised"
_ROWS = np.zeros((64, 1), np.uint8)  # the queue carries rows and never looks at them


@dataclass(eq=False)
class Request:
    """One request and what became of it; times in seconds."""

    arrival: float
    images: int = 1
    timeout: float = math.inf
    priority: Priority = Priority.NORMAL
    variant: str = VARIANT
    answered: float | None = None
    refused: float | None = None

    @property
    def deadline(self) -> float:
        """When the answer becomes worthless."""
        return self.arrival + self.timeout

    @property
    def in_time(self) -> bool:
        """Whether it was answered by its deadline."""
        return self.answered is not None and self.answered <= self.deadline


@dataclass(frozen=True)
class Server:
    """The machine.

    Attributes:
        batch_seconds: Seconds of a batch of 1, 2, ... images, by variant.
        decode_seconds: Seconds of a core to decode an image.
        decoders: How many images are decoded at a time.
        noise: Standard deviation of the logarithm of every time.
        decode_slows: Part of the engine's speed that a busy decoder takes; 1 / cores where they share the cores.
        devices: How many there are, each executing one batch at a time.
        in_flight: How many batches a device holds; while one executes, others are copied.
        copying: Part of a batch's time that is spent on copying.
        slowdown: By how much longer a batch takes that starts at a moment: others may use the machine.
    """

    batch_seconds: dict[str, Sequence[float]]
    decode_seconds: float = 0.002
    decoders: int = 2
    noise: float = 0.02
    decode_slows: float = 0.0
    devices: int = 1
    in_flight: int = 1
    copying: float = 0.0
    slowdown: Callable[[float], float] = lambda now: 1.0

    @property
    def max_batch(self) -> int:
        """The largest batch."""
        return len(next(iter(self.batch_seconds.values())))

    def capacity(self, variant: str = VARIANT) -> float:
        """Images a second that a variant reaches in its best batch."""
        alone = max(size / seconds for size, seconds in enumerate(self.batch_seconds[variant], start=1))
        return self.devices * alone * (1.0 if self.in_flight == 1 else 1 / (1 - self.copying))

    @property
    def parallel(self) -> int:
        """How many batches may run at once."""
        return self.devices * self.in_flight


@dataclass(eq=False)
class Run:
    """A batch in the engine.

    Attributes:
        members: (request, image) of each row.
        batch: What the queue of the service calls it.
        device: Where it runs.
        started: When it was taken.
    """

    members: list[tuple[Request, int]]
    batch: Batch | None = None
    device: int = 0
    started: float = 0.0


class Policy(Protocol):
    """What the simulation asks of a batching rule."""

    def admit(self, request: Request, now: float) -> bool:
        """Whether the request is taken in; it will be decoded next."""

    def enqueue(self, request: Request, now: float) -> None:
        """The request is decoded."""

    def take(self, now: float) -> Run | None:
        """The engine is free: its next batch, or None."""

    def finish(self, run: Run, now: float) -> list[Request]:
        """A batch is over; the requests that are complete by it."""

    def wake_at(self) -> float | None:
        """When to call `take` again although nothing happens."""

    def ready(self) -> int:
        """Images that could run now."""


class Tessera:
    """The queue of the service itself."""

    def __init__(self, server: Server, capacity: int = 128) -> None:
        self._now = 0.0
        self.queue = ImageQueue(
            server.batch_seconds,
            capacity=capacity,
            max_batch=server.max_batch,
            clock=lambda: self._now,
            decoders=server.decoders,
            parallel=lambda: server.parallel,
        )
        for variant, seconds in server.batch_seconds.items():
            for size in (1, 2, 4, 8, 16):
                if size <= server.max_batch:
                    self.queue.table.seed(variant, size, seconds[size - 1])
        self.queue.decoded(server.decode_seconds)
        self._tickets: dict[Request, Ticket] = {}
        self._requests: dict[Ticket, Request] = {}
        self._undecoded = 0

    def admit(self, request: Request, now: float) -> bool:
        """See `Policy`."""
        self._now = now
        try:
            ticket = self.queue.admit(
                request.variant, request.images, deadline=request.deadline, priority=request.priority
            )
        except RequestError:
            return False
        self._tickets[request] = ticket
        self._requests[ticket] = request
        self._undecoded += request.images
        return True

    def enqueue(self, request: Request, now: float) -> None:
        """See `Policy`."""
        self._now = now
        self._undecoded -= request.images
        self.queue.enqueue(self._tickets[request], _ROWS)

    def take(self, now: float) -> Run | None:
        """See `Policy`."""
        self._now = now
        batch = self.queue.take()
        self.queue.take_dropped()
        if batch is None:
            return None
        return Run([(self._requests[ticket], index) for ticket, index in batch.members], batch)

    def finish(self, run: Run, now: float) -> list[Request]:
        """See `Policy`."""
        assert run.batch is not None
        self._now = now
        outcome = Outcome(None, None, 0.0, now - run.started, len(run.members))
        return [self._requests[ticket] for ticket in self.queue.finish(run.batch, [outcome] * len(run.members))]

    def wake_at(self) -> float | None:
        """See `Policy`."""
        return self.queue.wake_at()

    def ready(self) -> int:
        """See `Policy`."""
        return self.queue.depth - self._undecoded


@dataclass
class Fifo:
    """First in, first out, as other servers batch, with a bound on images.

    Args:
        max_batch: The largest batch; 1 is no batching.
        delay: Seconds that the oldest image waits for the batch to fill.
        capacity: Most images admitted and not yet in a batch.
    """

    max_batch: int
    delay: float = 0.0
    capacity: int = 128
    _waiting: deque[tuple[Request, int, float]] = field(default_factory=deque)
    _depth: int = 0
    _unfinished: dict[Request, int] = field(default_factory=dict)

    def admit(self, request: Request, now: float) -> bool:
        """See `Policy`."""
        if self._depth + request.images > self.capacity:
            return False
        self._depth += request.images
        self._unfinished[request] = request.images
        return True

    def enqueue(self, request: Request, now: float) -> None:
        """See `Policy`."""
        self._waiting += [(request, index, now) for index in range(request.images)]

    def take(self, now: float) -> Run | None:
        """See `Policy`."""
        while self._waiting and self._waiting[0][0].deadline <= now:
            self._waiting.popleft()
            self._depth -= 1
        full = len(self._waiting) >= self.max_batch
        if not self._waiting or not (full or now >= self._waiting[0][2] + self.delay - 1e-9):
            return None
        members = []
        while self._waiting and len(members) < self.max_batch:
            if members and self._waiting[0][0].variant != members[0][0].variant:
                break
            request, index, _ = self._waiting.popleft()
            self._depth -= 1
            members.append((request, index))
        return Run(members)

    def finish(self, run: Run, now: float) -> list[Request]:
        """See `Policy`."""
        done = []
        for request, _ in run.members:
            self._unfinished[request] -= 1
            if self._unfinished[request] == 0:
                done.append(request)
        return done

    def wake_at(self) -> float | None:
        """See `Policy`."""
        return self._waiting[0][2] + self.delay if self._waiting else None

    def ready(self) -> int:
        """See `Policy`."""
        return len(self._waiting)


@dataclass
class Result:
    """A simulated run.

    Attributes:
        requests: Every request and what became of it.
        seconds: From the first arrival to the last event.
        busy: Seconds that the engine ran, summed over batches.
        idle_while_waiting: Seconds that it could have run another batch, and images waited.
        sizes: Images of every batch.
        wasted: Engine seconds spent on images whose request was not answered in time.
    """

    requests: list[Request]
    seconds: float = 0.0
    busy: float = 0.0
    idle_while_waiting: float = 0.0
    sizes: list[int] = field(default_factory=list)
    wasted: float = 0.0

    def goodput(self) -> float:
        """Images a second answered by their deadline and before the last arrival: what drains after it is left out."""
        end = max(request.arrival for request in self.requests)
        return sum(r.images for r in self.requests if r.in_time and r.answered is not None and r.answered <= end) / end

    def latency(self, percent: float, wanted: Callable[[Request], bool] = lambda request: True) -> float:
        """A percentile of the seconds from arrival to answer, of the requests that were answered."""
        times = [r.answered - r.arrival for r in self.requests if r.answered is not None and wanted(r)]
        return float(np.percentile(times, percent)) if times else math.nan

    def kept(self) -> float:
        """The part of admitted requests that were answered in time."""
        admitted = [request for request in self.requests if request.refused is None]
        return sum(request.in_time for request in admitted) / len(admitted)

    def refused(self) -> float:
        """The part of requests that were refused."""
        return sum(request.refused is not None for request in self.requests) / len(self.requests)


class Engine:
    """The devices of a server: each copies batches while it executes another one.

    Args:
        server: The machine.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._held = [0] * server.devices
        self._executing_until = [0.0] * server.devices

    @property
    def free(self) -> bool:
        """Whether another batch can be taken."""
        return sum(self._held) < self._server.parallel

    def start(self, run: Run, now: float, seconds: float) -> float:
        """Take a batch that needs `seconds` when it is alone; returns when it will be over."""
        run.started = now
        run.device = device = min(range(len(self._held)), key=lambda number: self._held[number])
        self._held[device] += 1
        copying = seconds * self._server.copying
        begin = max(now + copying, self._executing_until[device])
        self._executing_until[device] = begin + seconds - copying
        return self._executing_until[device]

    def end(self, run: Run) -> None:
        """A batch is over."""
        self._held[run.device] -= 1


def simulate(server: Server, policy: Policy, requests: Iterable[Request], seed: int = 0) -> Result:
    """Run `requests` through `policy` on `server` to the end."""
    random = np.random.default_rng(seed)
    result = Result(list(requests))
    events: list[tuple[float, int, str, Request | Run | None]] = []
    numbers = count()

    def at(time: float, kind: str, subject: Request | Run | None = None) -> None:
        heapq.heappush(events, (time, next(numbers), kind, subject))

    def vary(seconds: float) -> float:
        return seconds * math.exp(server.noise * random.standard_normal())

    for request in result.requests:
        at(request.arrival, "arrival", request)
    to_decode: deque[Request] = deque()
    undecoded: dict[Request, int] = {}
    decoding = 0
    engine = Engine(server)
    woken_at = -1.0
    last = now = 0.0
    ready = 0
    while events:
        now, _, kind, subject = heapq.heappop(events)
        if engine.free and ready:
            result.idle_while_waiting += now - last
        last = now
        if isinstance(subject, Run):
            engine.end(subject)
            for done in policy.finish(subject, now):
                done.answered = now
            seconds = now - subject.started
            result.busy += seconds
            late = sum(member.deadline < now for member, _ in subject.members)
            result.wasted += seconds * late / len(subject.members)
        elif kind == "arrival":
            assert subject is not None
            if policy.admit(subject, now):
                undecoded[subject] = subject.images
                to_decode.extend([subject] * subject.images)
            else:
                subject.refused = now
        elif kind == "decoded":
            assert subject is not None
            decoding -= 1
            undecoded[subject] -= 1
            if undecoded[subject] == 0:
                policy.enqueue(subject, now)
        while to_decode and decoding < server.decoders:
            decoding += 1
            at(now + vary(server.decode_seconds), "decoded", to_decode.popleft())
        while engine.free and (taken := policy.take(now)) is not None:
            result.sizes.append(len(taken.members))
            slow = (1 + server.decode_slows * decoding) * server.slowdown(now)
            alone = server.batch_seconds[taken.members[0][0].variant][len(taken.members) - 1]
            at(engine.start(taken, now, vary(alone) * slow), "finish", taken)
        if engine.free:
            wake = policy.wake_at()
            if wake is not None and wake > max(now, woken_at):
                woken_at = wake
                at(wake, "wake")
        ready = policy.ready()
    result.seconds = now
    return result
