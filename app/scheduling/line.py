"""A line of requests, ordered by when each is due. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from tessera.app.scheduling.ticket import Ticket


class Line:
    """Requests by time, equal times in order of joining.

    The line costs O(n) to leave and O(log n) to search, with n bounded by the queue's capacity.

    Args:
        numbers: Numbers the tickets that join; lines that share it can be compared with each other.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._entries: list[tuple[float, int, Ticket]] = []
        self._places: dict[Ticket, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Ticket]:
        return (ticket for _, _, ticket in self._entries)

    def __reversed__(self) -> Iterator[Ticket]:
        return (ticket for _, _, ticket in reversed(self._entries))

    @property
    def first(self) -> Ticket:
        """The ticket that is next."""
        return self._entries[0][2]

    @property
    def starts(self) -> tuple[float, int]:
        """The place of the ticket that is next: its time, and its number among equals."""
        return self._entries[0][:2]

    @property
    def ends(self) -> float:
        """The time of the last ticket."""
        return self._entries[-1][0]

    def join(self, ticket: Ticket, time: float) -> None:
        """Put a ticket in its place by `time`, behind those of the same time."""
        place = (time, next(self._numbers))
        self._places[ticket] = place
        insort(self._entries, (*place, ticket))

    def leave(self, ticket: Ticket) -> None:
        """Take a ticket out; harmless when it is not there."""
        place = self._places.pop(ticket, None)
        if place is not None:
            del self._entries[bisect_left(self._entries, place)]
