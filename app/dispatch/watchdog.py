"""When the engine process counts as hung. Pure: it is told what the board shows, at regular intervals."""

from __future__ import annotations

from collections.abc import Mapping

INTERVAL = 0.1  # seconds between two looks
_SILENT_LOOKS = 30  # without a heartbeat: 3 s; counted in looks, so that a suspended machine is no hung engine
_SILENT_LOOKS_LOADING = 600  # packing weights and building sessions hold the interpreter for long
_SLOWEST = 20  # times its expected duration
_FLOOR = 3.0  # seconds that any batch is allowed
_OVERDUE_LOOKS = 3  # in a row: start and limit of a batch are two words, and one look may see them of two batches


def batch_limit(expected: float) -> float:
    """After how many seconds a batch that should take `expected` counts as hung."""
    return max(_FLOOR, _SLOWEST * expected)


class Watchdog:
    """Watches one engine process from its start to its end."""

    def __init__(self) -> None:
        self._heartbeat = -1
        self._silent = 0
        self._late = 0

    def look(self, heartbeat: int, overdue: float, *, loading: bool) -> str | None:
        """Judge what the board shows now.

        Args:
            heartbeat: The heartbeat.
            overdue: Seconds by which the running batch that is latest is over its limit.
            loading: Whether the model is still being loaded.

        Returns:
            Why the process counts as hung, or None.
        """
        self._silent = 0 if heartbeat != self._heartbeat else self._silent + 1
        self._heartbeat = heartbeat
        if self._silent >= (_SILENT_LOOKS_LOADING if loading else _SILENT_LOOKS):
            return f"no heartbeat for {self._silent * INTERVAL:.0f} s"
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
