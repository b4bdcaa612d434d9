"""How a balancer chooses among replicas, and when it tries again, as Envoy does with `deploy/envoy/envoy.yaml`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Protocol

import numpy as np
import numpy.typing as npt

# As in envoy.yaml: host_selection_retry_max_attempts, num_retries, retry_back_off, retry_budget.
CHOICES = 64
RETRIES = 3
BACK_OFF = (0.005, 0.05)
BUDGET = 0.2
LEAST_BUDGET = 32


@dataclass
class Fleet:
    """What a balancer may know of its replicas.

    Attributes:
        speeds: Of each replica, 1 being a whole one.
        requests: Requests that each has not answered yet.
        images: Images of these.
    """

    speeds: npt.NDArray[np.float64]
    requests: list[int] = field(init=False)
    images: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.requests = [0] * len(self.speeds)
        self.images = np.zeros(len(self.speeds))


class Balancer(Protocol):
    """A rule of choosing."""

    def pick(self, fleet: Fleet, tried: Collection[int]) -> int:
        """The number of a replica, if possible not one of `tried`, which have refused the same request."""


class _Repeated(ABC):
    """Chooses again while it meets a replica that has refused, up to `CHOICES` times: the predicate previous_hosts."""

    def pick(self, fleet: Fleet, tried: Collection[int]) -> int:
        """See `Balancer`."""
        for _ in range(CHOICES):
            chosen = self.choose(fleet.requests)
            if chosen not in tried:
                break
        return chosen

    @abstractmethod
    def choose(self, requests: Sequence[int]) -> int:
        """The rule itself."""


class LeastRequest(_Repeated):
    """Of some replicas, drawn with replacement, the one with the fewest requests; of one choice, any replica."""

    def __init__(self, choices: int, seed: int = 0) -> None:
        self._choices = choices
        self._random = np.random.default_rng(seed)
        self._drawn: list[int] = []

    def choose(self, requests: Sequence[int]) -> int:
        """See `_Repeated`."""
        return min((self._draw(len(requests)) for _ in range(self._choices)), key=requests.__getitem__)

    def _draw(self, replicas: int) -> int:
        if not self._drawn:  # many at once, since one at a time is slow
            self._drawn = self._random.integers(replicas, size=4096).tolist()
        return self._drawn.pop()


class RoundRobin(_Repeated):
    """One after the other."""

    def __init__(self, replicas: int) -> None:
        self._numbers = cycle(range(replicas))

    def choose(self, requests: Sequence[int]) -> int:
        """See `_Repeated`."""
        return next(self._numbers)


class Perfect:
    """Knows every image at every replica and how fast each is, and takes the one that would be done first."""

    def pick(self, fleet: Fleet, tried: Collection[int]) -> int:
        """See `Balancer`."""
        times = (fleet.images + 1) / fleet.speeds
        times[list(tried)] = np.inf
        return int(np.argmin(times))
