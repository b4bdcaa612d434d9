"""Requests per second and client: a token bucket each, in bounded memory."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar

from tessera.app.errors import RateLimitedError

_MOST_CLIENTS = 65_536
_NETWORK = 64  # bits of an IPv6 address that one customer usually holds


class RateLimiter:
    """A token bucket for every client, in the form of GCRA (ITU-T I.371): one time stamp each instead of a count.

    The stamp says when the client's bucket will be full again. A full bucket is the same as none, so stamps that have
    passed are forgotten; under more clients than memory allows, the one that has waited longest is forgotten early.

    Args:
        rate: Requests per second that a bucket gains.
        burst: Requests that a full bucket holds.
        most_clients: Most buckets kept.
        clock: Seconds on a monotonic clock.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        most_clients: int = _MOST_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1 / rate
        self._rate = rate
        self._depth = (burst - 1) * self._interval
        self._most = most_clients
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # ordered by the client's last admitted request

    def __len__(self) -> int:
        return len(self._full_at)

    def admit(self, client: str) -> None:
        """Take one token from the client's bucket.

        Raises:
            RateLimitedError: The bucket is empty; carries when it is not.
        """
        now = self._clock()
        self._forget(now)
        full_at = max(now, self._full_at.get(client, now))
        wait = full_at - self._depth - now
        if wait > 0:
            raise RateLimitedError(
                f"One client may send {self._rate:g} requests per second; try again in {max(1, math.ceil(wait))} s.",
                retry_after=max(1, math.ceil(wait)),
            )
        self._full_at[client] = full_at + self._interval
        self._full_at.move_to_end(client)

    def _forget(self, now: float) -> None:
        # At most two per request, so that no request pays for many: the number still falls faster than it grows.
        for _ in range(2):
            if not self._full_at:
                return
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) < self._most:
                return
            del self._full_at[oldest]


# Whose request is being answered, as `client_key` names it; "" where the connection has no address.
client: ContextVar[str] = ContextVar("client", default="")


def client_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits; other names are themselves."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _NETWORK), strict=False))
