"""The engine's time, shared out among batches that run at once, so that no moment counts twice."""

from __future__ import annotations

import threading


class EngineShares:
    """Charges every moment in which something runs to the batch that ends next. Times are readings of one clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._charged_until = 0.0

    def started(self, now: float) -> None:
        """Something has begun to run."""
        with self._lock:
            if self._running == 0:
                self._charged_until = now
            self._running += 1

    def ended(self, now: float) -> float:
        """It is over; returns its share in seconds: all of its time where it ran alone."""
        with self._lock:
            self._running -= 1
            share = max(0.0, now - self._charged_until)
            self._charged_until = max(now, self._charged_until)
            return share
