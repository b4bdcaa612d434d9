"""Shares of time and of arithmetic, from the batches that ran."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class BusyRatio:
    """Share of the recent past that the engine was running batches.

    Args:
        window: Length of the recent past, in seconds.
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, window: float = 60.0, clock: Callable[[], float] = time.perf_counter) -> None:
        self._window = window
        self._clock = clock
        self._since = clock()
        self._runs: deque[tuple[float, float]] = deque()  # (end, seconds)
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Count a batch that ended now and ran for `seconds`."""
        with self._lock:
            self._runs.append((self._clock(), seconds))
            self._forget()

    def value(self) -> float:
        """The share, 0 to 1."""
        with self._lock:
            self._forget()
            now = self._clock()
            start = max(self._since, now - self._window)
            busy = sum(end - max(start, end - seconds) for end, seconds in self._runs)
            return min(1.0, busy / (now - start)) if now > start else 0.0

    def _forget(self) -> None:
        horizon = self._clock() - self._window
        while self._runs and self._runs[0][0] <= horizon:
            self._runs.popleft()


class ComputeUtilisation:
    """Achieved multiply-accumulates per second over the measured peak, of the last batches of one variant.

    Args:
        macs: Multiply-accumulates per image.
        peak: Peak multiply-accumulates per second at the variant's precision and thread count.
        batches: How many of the last batches count.
    """

    def __init__(self, macs: int, peak: float, batches: int = 64) -> None:
        self._macs = macs
        self._peak = peak
        self._runs: deque[tuple[float, float]] = deque(maxlen=batches)
        self._lock = threading.Lock()

    def observe(self, images: float, seconds: float) -> None:
        """Count a batch that was as much work as `images` of the usual size, and ran for `seconds`."""
        with self._lock:
            self._runs.append((images, seconds))

    def value(self) -> float:
        """The ratio; 0 before the first batch."""
        with self._lock:
            images = sum(count for count, _ in self._runs)
            seconds = sum(duration for _, duration in self._runs)
        return images * self._macs / seconds / self._peak if seconds > 0 else 0.0
