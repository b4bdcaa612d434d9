"""Which image is decoded next. Pure: the time is an argument.

- **Small** images, nearly all, take a moment and some megabytes. They never wait for a large one: where all threads are
  at large ones, one more decodes small ones.
- **Large** images take their memory from what all requests share, and run in an order of their own.
- Within each, an image may be overtaken by those that come within a few times its own cost, so the cheap go first and
  no image waits for ever. What a client has waiting already counts with its next image: a client that sends much waits
  more.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tessera.app.errors import DeadlineUnreachableError
from tessera.app.imaging.estimate import Estimate
from tessera.app.scheduling.snapshot import seconds_to_wait

SMALL_SECONDS = 0.05
SMALL_BYTES = 16 * 1024 * 1024
_STRETCH = 4  # an image may be overtaken for so many times the seconds that it takes
_MOST_DEBT = 1.0  # seconds of a client's waiting images that count with its next one
_WHOLE_SECONDS = 0.5  # a picture that takes so long, times the threads, has the memory for itself
_FIRST_PACE = 0.5
_PACE_WEIGHT = 1 / 8

Request = TypeVar("Request")


@dataclass(eq=False)
class Job(Generic[Request]):
    """One image that waits or is being decoded.

    Attributes:
        request: Whose it is.
        index: Which of the request's images.
        client: Who sent it.
        cost: What it is expected to hold and take.
        share: Of the memory, 0 to 1, that it takes when it is large.
        key: The job with the least key goes first.
    """

    request: Request
    index: int
    client: str
    cost: Estimate
    share: float = 0.0
    key: tuple[float, int] = field(default=(0.0, 0))

    @property
    def large(self) -> bool:
        """Whether it takes memory of what all share."""
        return self.cost.seconds > SMALL_SECONDS or self.cost.size > SMALL_BYTES

    def __lt__(self, other: Job[Request]) -> bool:
        return self.key < other.key


class DecodeOrder(Generic[Request]):
    """The images that wait.

    Args:
        memory: Bytes that all may hold.
        threads: How many are decoded at once.
    """

    def __init__(self, memory: int, threads: int) -> None:
        self._memory = memory
        self._threads = threads
        self._small: list[Job[Request]] = []
        self._large: list[Job[Request]] = []
        self._running: set[Job[Request]] = set()
        self._seconds: defaultdict[str, float] = defaultdict(float)  # of a client's images that wait or run
        self._pace = _FIRST_PACE  # seconds of the clock for an expected one
        self._count = 0

    def add(self, job: Job[Request], now: float, deadline: float = math.inf) -> None:
        """Let a job wait for its turn.

        Raises:
            DeadlineUnreachableError: By the time that it would have been decoded, its answer would be too late.
        """
        job.share = min(1.0, max(job.cost.size / self._memory, job.cost.seconds / _WHOLE_SECONDS / self._threads))
        debt = min(_MOST_DEBT, self._seconds.get(job.client, 0.0))
        self._count += 1
        job.key = (now + _STRETCH * (job.cost.seconds + debt), self._count)
        if job.large:
            self._check(job, now, deadline)
        self._seconds[job.client] += job.cost.seconds
        heapq.heappush(self._large if job.large else self._small, job)

    def take(self, *, large: bool) -> Job[Request] | None:
        """The next job, None when there is none; `finish` it.

        Args:
            large: Whether it may be a large one.
        """
        heaps = [heap for heap in ((self._small, self._large) if large else (self._small,)) if heap]
        if not heaps:
            return None
        job = heapq.heappop(min(heaps, key=lambda heap: heap[0]))
        self._running.add(job)
        return job

    def finish(self, job: Job[Request], seconds: float | None) -> None:
        """Note that a job is over.

        Args:
            job: As `take` returned it.
            seconds: What it took of the clock; None where it was not decoded.
        """
        self._running.remove(job)
        self._forget(job)
        if seconds is not None and job.large:
            self._pace += _PACE_WEIGHT * (seconds / job.cost.seconds - self._pace)

    def withdraw(self, request: Request) -> None:
        """Drop what waits of a request whose answer is not wanted."""
        for heap in (self._small, self._large):
            dropped = [job for job in heap if job.request is request]
            if dropped:
                heap[:] = [job for job in heap if job.request is not request]
                heapq.heapify(heap)
                for job in dropped:
                    self._forget(job)

    def _check(self, job: Job[Request], now: float, deadline: float) -> None:
        """Refuse a large job that would be over too late. With none before it, it is tried: that corrects the pace.

        Large jobs run side by side as far as the memory allows; a job that takes all of it runs alone.
        """
        before = [other for other in self._large if other < job] + [other for other in self._running if other.large]
        wait = math.fsum(other.cost.seconds * max(other.share, 1 / self._threads) for other in before)
        expected = self._pace * (wait + job.cost.seconds)
        if before and now + expected > deadline:
            later = seconds_to_wait(now + expected - deadline)
            raise DeadlineUnreachableError(
                f"Decoding so many pixels may take {expected * 1000:.0f} ms behind those that came before; the request "
                f"allows {max(0.0, deadline - now) * 1000:.0f} ms. Try again in {later} s, or send fewer pixels.",
                retry_after=later,
            )

    def _forget(self, job: Job[Request]) -> None:
        self._seconds[job.client] -= job.cost.seconds
        if self._seconds[job.client] <= 1e-9:
            del self._seconds[job.client]
