"""Bookkeeping that waits until the answer it is about has been sent."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from prometheus_client import Metric
from prometheus_client.registry import Collector

_MOST = 256  # calls that wait at most, so that who never settles holds little

P = ParamSpec("P")


class Deferral(Collector):
    """Calls made later, in order: each once, by the first `settle`.

    As the first collector of a registry it settles whenever the registry is read, so a reader never misses what had
    been counted before.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._lock = threading.RLock()  # a call may defer others

    def later(self, call: Callable[[], object]) -> None:
        """Have `call` made at the next `settle`; from any thread."""
        self._calls.append(call)
        if len(self._calls) > _MOST:
            self.settle()

    def settle(self) -> None:
        """Make every call that waits; when it returns, all of them have been made."""
        with self._lock:
            while self._calls:
                self._calls.popleft()()

    def collect(self) -> Iterable[Metric]:
        """Settle; there is no metric of its own."""
        self.settle()
        return ()

    def describe(self) -> Iterable[Metric]:
        """No metric."""
        return ()


class Deferring(Protocol):
    """An object with a deferral."""

    @property
    def deferral(self) -> Deferral:
        """What its calls wait in."""


Self = TypeVar("Self", bound=Deferring)


def deferred(method: Callable[Concatenate[Self, P], Any]) -> Callable[Concatenate[Self, P], None]:
    """Make a method one that is run at the next `settle`."""

    @wraps(method)
    def later(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self.deferral.later(partial(method, self, *args, **kwargs))

    return later
