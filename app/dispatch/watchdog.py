"""When a process counts as hung. Pure: it is told what the board shows, at regular intervals."""

from __future__ import annotations

from collections.abc import Mapping

INTERVAL = 0.1  # seconds between two looks
_SILENT_LOOKS = 30  # without a heartbeat: 3 s; counted in looks, so that a suspended machine is no hung engine
# A frontend is allowed more: parsing large JSON on other threads may keep Python's lock from its event loop.
_SILENT_LOOKS_FRONTEND = 50
_SILENT_LOOKS_LOADING = 600  # packing weights and building sessions hold the interpreter for long
_PUNCTUAL = 2  # times the interval that a look may come after the one before
_SLOWEST = 20  # times its expected duration
_FLOOR = 3.0  # seconds that any batch is allowed
_OVERDUE_LOOKS = 3  # in a row: start and limit of a batch are two words, and one look may see them of two batches


def batch_limit(expected: float) -> float:
    """After how many seconds a batch that should take `expected` counts as hung."""
    return max(_FLOOR, _SLOWEST * expected)


def weight_of(elapsed: float) -> float:
    """How much a look counts that came `elapsed` seconds after the one before: less when it is late.

    What holds up the one who looks, a machine with too much to do, holds up the one who is looked at as well.
    """
    return min(1.0, _PUNCTUAL * INTERVAL / elapsed) if elapsed > 0 else 1.0


class _Silence:
    """Counts the looks at a heartbeat that does not change."""

    def __init__(self) -> None:
        self._heartbeat = -1
        self._looks = 0.0

    def look(self, heartbeat: int, weight: float, limit: int) -> str | None:
        """Why a process counts as hung when it may be silent for `limit` looks, or None."""
        self._looks = 0.0 if heartbeat != self._heartbeat else self._looks + weight
        self._heartbeat = heartbeat
        return f"no heartbeat for {self._looks * INTERVAL:.0f} s" if self._looks >= limit else None


class FrontendWatchdog:
    """Watches one frontend from its start to its end. It beats once it is ready."""

    def __init__(self) -> None:
        self._starting = _Silence()
        self._serving = _Silence()

    def look(self, heartbeat: int, *, ready: bool, weight: float = 1.0) -> str | None:
        """Why the process counts as hung, or None.

        Args:
            heartbeat: What the board shows now.
            ready: Whether it has said that it answers.
            weight: See `weight_of`.
        """
        if ready:
            return self._serving.look(heartbeat, weight, _SILENT_LOOKS_FRONTEND)
        return self._starting.look(heartbeat, weight, _SILENT_LOOKS_LOADING)


class Watchdog:
    """Watches one engine process from its start to its end."""

    def __init__(self) -> None:
        self._silence = _Silence()
        self._late = 0

    def look(self, heartbeat: int, overdue: float, *, loading: bool, weight: float = 1.0) -> str | None:
        """Judge what the board shows now.

        Args:
            heartbeat: The heartbeat.
            overdue: Seconds by which the running batch that is latest is over its limit.
            loading: Whether the model is still being loaded.
            weight: See `weight_of`.

        Returns:
            Why the process counts as hung, or None.
        """
        silent = self._silence.look(heartbeat, weight, _SILENT_LOOKS_LOADING if loading else _SILENT_LOOKS)
        if silent is not None:
            return silent
        self._late = self._late + 1 if overdue > 0 else 0
        if self._late >= _OVERDUE_LOOKS:
            return f"a batch is {overdue:.1f} s over its limit"
        return None


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
