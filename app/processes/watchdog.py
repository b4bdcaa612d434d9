"""When a process counts as hung. Pure: it is told what the process shows and does, at regular intervals.

Time is counted as the process lives it. While none of its threads wants a core, that is the looks that pass; else it is
the CPU time of its busiest thread. So a process that a loaded machine gives no core does not grow older.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tessera.app.processes.activity import Activity

INTERVAL = 0.1  # seconds between two looks
_SLOWEST = 20  # times its expected duration
_FLOOR = 3.0  # seconds that any batch is allowed
_GRACE = 0.25  # of its limit that a batch over it is allowed: far more than it should take, had it begun only then


class Patience(NamedTuple):
    """How long a process may show no sign of life.

    Attributes:
        idle: Seconds in which it does nothing either.
        busy: Seconds that its busiest thread computes.
    """

    idle: float
    busy: float


SERVING = Patience(3.0, 3.0)
# A frontend is allowed more: parsing large JSON on other threads may keep Python's lock from its event loop.
SERVING_FRONTEND = Patience(5.0, 5.0)
# Importing, packing weights and building sessions beat rarely. All of a start takes a few seconds of CPU time.
STARTING = Patience(20.0, 60.0)


class Running(NamedTuple):
    """A batch that is being run.

    Attributes:
        started: When it began, which is its identity.
        limit: After how many seconds it counts as hung.
    """

    started: float
    limit: float


def batch_limit(expected: float) -> float:
    """After how many seconds a batch that should take `expected` counts as hung."""
    return max(_FLOOR, _SLOWEST * expected)


class Standstill:
    """Measures how long something about a process has not changed.

    Args:
        activity: Says what the process is doing; asked only while nothing changes.
    """

    def __init__(self, activity: Callable[[], Activity]) -> None:
        self._activity = activity
        self._sign: float | None = None
        self._before: dict[int, float] | None = None
        self._idle = 0.0

    def look(self, sign: float | None, patience: Patience) -> float | None:
        """Look at what should change.

        Args:
            sign: What it is now; None always counts as a change.
            patience: How long it may stay so.

        Returns:
            For how many seconds it has stayed so, once `patience` is over; else None.
        """
        if sign is None or sign != self._sign:
            self._sign, self._before, self._idle = sign, None, 0.0
            return None
        now = self._activity()
        if self._before is None:
            self._before = now.cpu_seconds
        # No look is worth more than the interval, however late: a suspended machine is no hung process.
        self._idle += 0.0 if now.runs else INTERVAL
        spent = (seconds - self._before.get(thread, 0.0) for thread, seconds in now.cpu_seconds.items())
        busy = max(spent, default=0.0)
        return self._idle + busy if self._idle >= patience.idle or busy >= patience.busy else None


class Watchdog:
    """Watches one process from its start to its end.

    Args:
        activity: Says what the process is doing.
    """

    def __init__(self, activity: Callable[[], Activity]) -> None:
        self._silence = Standstill(activity)
        self._batch = Standstill(activity)

    def look(self, heartbeat: int, patience: Patience, overdue: Running | None = None) -> str | None:
        """Judge what the process shows now.

        Args:
            heartbeat: A number that changes as long as the process lives.
            patience: How long it need not change.
            overdue: The batch that is most over its limit by the clock, if any is.

        Returns:
            Why the process counts as hung, or None.
        """
        silent = self._silence.look(heartbeat, patience)
        if silent is not None:
            return f"no heartbeat for {silent:.0f} s"
        grace = 0.0 if overdue is None else _GRACE * overdue.limit
        late = self._batch.look(None if overdue is None else overdue.started, Patience(grace, grace))
        return None if late is None else f"a batch is {late:.1f} s over its limit"


class ExpectedSeconds:
    """What a batch of one variant should take, for its limit: from the warm-up, then from what ran.

    Args:
        measured: Seconds by batch size.
    """

    def __init__(self, measured: Mapping[int, float]) -> None:
        self._per_image = max((seconds / size for size, seconds in measured.items()), default=0.0)

    def of(self, images: int) -> float:
        """Expected seconds of a batch of `images`."""
        return self._per_image * images

    def observe(self, images: int, seconds: float) -> None:
        """Count a batch of `images` that took `seconds`."""
        self._per_image += (seconds / images - self._per_image) / 8
