"""Bytes of request bodies that are held at once, over all requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tessera.app.errors import TooManyUploadsError


class UploadBudget:
    """Counts the bytes of bodies in memory and refuses more than a limit.

    Args:
        limit: Most bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes taken and not yet given back."""
        return self._held

    def take(self, count: int) -> None:
        """Take `count` bytes; they are held until `give_back`.

        Raises:
            TooManyUploadsError: They would be more than the limit together with what is held.
        """
        if self._held + count > self._limit:
            raise TooManyUploadsError(
                f"The uploads in progress hold {self._held} of {self._limit} bytes, and {count} more do not fit; "
                "try again in a moment.",
                retry_after=1,
            )
        self._held += count

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Hold `count` bytes for as long as the block lasts.

        Raises:
            TooManyUploadsError: See `take`.
        """
        self.take(count)
        try:
            yield
        finally:
            self.give_back(count)

    def give_back(self, count: int) -> None:
        """Return `count` bytes that were taken."""
        self._held -= count


class Upload:
    """One request's share of the budget; give it back when its body is no longer held.

    Args:
        budget: The budget.
    """

    def __init__(self, budget: UploadBudget) -> None:
        self._budget = budget
        self._taken = 0

    def grow(self, size: int) -> None:
        """Make the share at least `size` bytes.

        Raises:
            TooManyUploadsError: See `UploadBudget.take`.
        """
        if size > self._taken:
            self._budget.take(size - self._taken)
            self._taken = size

    def end(self) -> None:
        """Give the share back."""
        self._budget.give_back(self._taken)
        self._taken = 0
