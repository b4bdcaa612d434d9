"""What a simulated server is given: requests, its machine's times, and a batching rule: the real queue or a rival."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    given_up: float | None = None

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

    def given_up(self) -> list[Request]:
        """The requests that `take` dropped since the last call: they can no longer be answered in time."""

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
        if batch is None:
            return None
        return Run([(self._requests[ticket], index) for ticket, index in batch.members], batch)

    def finish(self, run: Run, now: float) -> list[Request]:
        """See `Policy`."""
        assert run.batch is not None
        self._now = now
        outcome = Outcome(None, None, 0.0, now - run.started, len(run.members))
        return [self._requests[ticket] for ticket in self.queue.finish(run.batch, [outcome] * len(run.members))]

    def given_up(self) -> list[Request]:
        """See `Policy`."""
        return [self._requests[ticket] for ticket in self.queue.take_dropped()]

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
    _dropped: list[Request] = field(default_factory=list)

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
            request, _, _ = self._waiting.popleft()
            self._depth -= 1
            if self._unfinished.pop(request, None) is not None:
                self._dropped.append(request)
        full = len(self._waiting) >= self.max_batch
        if not self._waiting or not (full or now >= self._waiting[0][2] + self.delay - 1e-9):
            return None
        members: list[tuple[Request, int]] = []
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
            if request not in self._unfinished:  # given up, an image of it being late
                continue
            self._unfinished[request] -= 1
            if self._unfinished[request] == 0:
                del self._unfinished[request]
                done.append(request)
        return done

    def given_up(self) -> list[Request]:
        """See `Policy`."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def wake_at(self) -> float | None:
        """See `Policy`."""
        return self._waiting[0][2] + self.delay if self._waiting else None

    def ready(self) -> int:
        """See `Policy`."""
        return len(self._waiting)
