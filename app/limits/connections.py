"""Who may be connected: places for clients, shared fairly when there are too few, and a reserve for probes."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

RESERVE = 64  # connections beyond the limit, of which only the head of one request is read
_OTHER_FILES = 64  # descriptors for everything that is no connection: models, logs, pipes, what libraries open
_PATIENCE = 1.0  # seconds that a connection may be idle although others want its place
_LARGE_SHARE = 8  # a client whose waiting connections are more than this part of all places gets no patience
_BETWEEN_LINES = 10.0  # seconds between log lines about clients that find no place


class Guest(Protocol):
    """A connection as the table sees it."""

    def displace(self, *, linger: bool) -> None:
        """Close, because another needs the place; `linger` says whether there is time for a last word."""


class Place:
    """What a connection holds.

    Attributes:
        guest: The connection.
        client: Who it belongs to, see `tessera.app.limits.clients.client_key`.
        reserved: Whether it is one of the reserve: good for a probe, or for a last word.
        short: Whether it was made when descriptors had nearly run out.
    """

    __slots__ = ("client", "guest", "reserved", "short")

    def __init__(self, guest: Guest, client: str, *, short: bool) -> None:
        self.guest = guest
        self.client = client
        self.reserved = True
        self.short = short


class ConnectionTable:
    """Counts connections, and decides who gives way to whom.

    A connection waits while its client has the next move: it owes a head, the rest of a body, or the next request. When
    all places are taken, a connection beyond them is one of a small reserve until its head is there. A probe is then
    answered. Any other request takes the place of a connection that waits: the one that has waited longest, of the
    client that has most of them. So a client keeps no other out by holding connections open, and no client that shares
    its address with many others (a proxy, a network) is limited while there is room.

    In a full reserve the oldest connection gives way to the next. Every operation takes constant time.

    Args:
        limit: Most connections besides the reserve.
        files: From this descriptor on descriptors are nearly out, and connections go to the reserve; None for never.
        on_refusal: Called for every connection that got no place, or lost it.
        clock: Seconds on a monotonic clock.
    """

    def __init__(
        self,
        limit: int,
        *,
        files: int | None = None,
        on_refusal: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._files = files
        self._on_refusal = on_refusal
        self._clock = clock
        self._admitted: set[Place] = set()
        self._reserved: dict[Place, bool] = {}  # in order of arrival; whether it waits
        self._waiting: dict[str, dict[Place, float]] = {}  # by client: since when, the longest first
        self._ranks: list[dict[str, None]] = [{}]  # clients by how many of their connections wait; the last has most
        self._refusals = 0
        self._told_at = -_BETWEEN_LINES

    def enter(self, guest: Guest, client: str, file: int) -> Place | None:
        """Take a connection in.

        Args:
            guest: The connection.
            client: Whose it is.
            file: Its descriptor.

        Returns:
            Its place; None when not even the reserve has one, because all of it is being answered.
        """
        place = Place(guest, client, short=self._files is not None and file >= self._files)
        if len(self._admitted) < self.limit and not place.short:
            self._admit(place)
        elif not self._reserve(place):
            self.refused()
            return None
        return place

    def promote(self, place: Place) -> bool:
        """Give a reserved connection, whose request has come, a place, of one that waits if need be.

        Returns:
            Whether it has one.
        """
        if len(self._admitted) >= self.limit or place.short:
            displaced = self._dispensable(place.client)
            if displaced is None:
                self.refused()
                return False
            self._forget(displaced)
            self._reserved.pop(place)
            self._reserve(displaced)
            self.refused()
            displaced.guest.displace(linger=True)
        else:
            self._reserved.pop(place)
        place.reserved = place.short = False
        self._admit(place)
        return True

    def waits(self, place: Place) -> None:
        """It is the client's turn, from now on."""
        if place.reserved:
            if place in self._reserved:
                self._reserved[place] = True
            return
        waiting = self._waiting.setdefault(place.client, {})
        before = len(waiting)
        waiting.pop(place, None)
        waiting[place] = self._clock()
        self._rank(place.client, before, len(waiting))

    def works(self, place: Place) -> None:
        """It is our turn: the connection is not to be taken."""
        if place.reserved:
            if place in self._reserved:
                self._reserved[place] = False
        else:
            self._stop_waiting(place)

    def leave(self, place: Place) -> None:
        """The connection has ended."""
        self._forget(place)
        self._reserved.pop(place, None)

    def refused(self) -> None:
        """Count a connection that got no place, or lost it; say so in the log now and then."""
        self._on_refusal()
        self._refusals += 1
        now = self._clock()
        if now - self._told_at >= _BETWEEN_LINES:
            short = any(place.short for place in self._reserved)
            reason = "file descriptors have nearly run out" if short else "max_connections are open"
            fields = {"reason": reason, "connections": len(self._admitted), "refused": self._refusals}
            logger.warning("connections are refused", extra={"fields": fields})
            self._told_at, self._refusals = now, 0

    def _admit(self, place: Place) -> None:
        place.reserved = False
        self._admitted.add(place)
        self.waits(place)

    def _reserve(self, place: Place) -> bool:
        """Put a connection into the reserve; another that waits there gives way where it is full."""
        if len(self._reserved) >= RESERVE:
            oldest = next((held for held, waits in self._reserved.items() if waits), None)
            if oldest is None:
                return False
            self._reserved.pop(oldest)
            oldest.guest.displace(linger=False)
        place.reserved = True
        self._reserved[place] = True
        return True

    def _dispensable(self, client: str) -> Place | None:
        """The connection whose place a request of `client` may have."""
        if not self._ranks[-1]:
            return None
        greediest = next(iter(self._ranks[-1]))
        waiting = self._waiting[greediest]
        oldest = next(iter(waiting))
        holds_many = len(waiting) > max(len(self._admitted) // _LARGE_SHARE, len(self._waiting.get(client, ())) + 1)
        if not holds_many and self._clock() - waiting[oldest] < _PATIENCE:
            return None
        return oldest

    def _forget(self, place: Place) -> None:
        if place in self._admitted:
            self._admitted.remove(place)
            self._stop_waiting(place)

    def _stop_waiting(self, place: Place) -> None:
        waiting = self._waiting.get(place.client)
        if waiting is None or waiting.pop(place, None) is None:
            return
        self._rank(place.client, len(waiting) + 1, len(waiting))
        if not waiting:
            del self._waiting[place.client]

    def _rank(self, client: str, before: int, after: int) -> None:
        if before == after:
            return
        ranks = self._ranks
        if before:
            del ranks[before][client]
        if after:
            if after == len(ranks):
                ranks.append({})
            ranks[after][client] = None
        while len(ranks) > 1 and not ranks[-1]:
            ranks.pop()


def allow_files(connections: int) -> int | None:
    """Raise the limit of open files to what `connections` need, as far as this process may.

    Returns:
        The limit where it is less than that; None where there are enough.
    """
    needed = connections + RESERVE + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # the kernel has a limit of its own
        wanted = soft
    return wanted if wanted < needed else None


def last_file() -> int | None:
    """The descriptor from which on connections are only taken for probes; None when there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(soft - RESERVE - _OTHER_FILES, soft // 2)
