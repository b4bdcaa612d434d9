"""The accuracy guard: moves traffic to the baseline when live agreement is shown to be below a bound.

The test. The last `window` comparisons are held against the bound by an exact binomial test (the one behind
Clopper and Pearson's interval): how likely is so little agreement if the true agreement were exactly the bound?
The guard trips when that is under `ALARM_LEVEL`. It looks after every comparison, which is where a naive interval goes
wrong: at 95 % a healthy variant would trip within minutes. Each look has a chance of at most ALARM_LEVEL, so N looks,
however they overlap, have one of at most N * ALARM_LEVEL (union bound): one false alarm in a million comparisons or
more, for a variant that sits exactly on the bound; beyond measure for one above it.

No flapping. Between "shown to be below" and "shown to be above" the state stays. Comparisons from before a change of
state do not count after it. Recovery, where it is automatic, looks once per full set of fresh comparisons, at
`RECOVERY_LEVEL`, and every trip doubles the set that the next recovery needs (up to 16 windows).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import NamedTuple

from tessera.models.evaluation.intervals import Interval, binomial_at_least, binomial_at_most, wilson_interval

ALARM_LEVEL = 1e-6
RECOVERY_LEVEL = 1e-3
MIN_SAMPLES = 20
LONGEST_RECOVERY = 16  # windows
HISTORY = 100


class GuardState(Enum):
    """WATCHING lets traffic through; TRIPPED sends it to the baseline."""

    WATCHING = "watching"
    TRIPPED = "tripped"


class GuardEvent(NamedTuple):
    """A change of state.

    Attributes:
        at: Seconds since 1970.
        event: `tripped`, `recovered` or `reset`.
        why: A sentence.
        agreement: Agreement in the comparisons that decided, with its interval; None where there were none.
        samples: How many these were.
    """

    at: float
    event: str
    why: str
    agreement: Interval | None
    samples: int


class Guard:
    """Watches a stream of comparisons. Not thread-safe: its owner holds a lock.

    Args:
        bound: Least acceptable agreement, above 0.5 and under 1.
        window: How many of the last comparisons count, at least `MIN_SAMPLES`.
        automatic: Whether it recovers by itself; else only `reset` ends a trip.
        clock: Seconds since 1970.
    """

    def __init__(self, bound: float, window: int, *, automatic: bool, clock: Callable[[], float]) -> None:
        self.bound = bound
        self.window = window
        self.automatic = automatic
        self.state = GuardState.WATCHING
        self.trips = 0
        self.history: deque[GuardEvent] = deque(maxlen=HISTORY)
        self._clock = clock
        self._seen: deque[tuple[bool, bytes | None]] = deque()
        self._known: set[bytes] = set()
        self._agreeing = 0

    @property
    def samples(self) -> int:
        """Comparisons that count now."""
        return len(self._seen)

    @property
    def needed(self) -> int:
        """Comparisons that the next decision looks at: a full window, or what recovery needs."""
        if self.state is GuardState.WATCHING:
            return self.window
        doublings = min(self.trips - 1, LONGEST_RECOVERY.bit_length() - 1)
        return self.window << doublings

    def agreement(self) -> Interval | None:
        """Agreement in the comparisons that count now, with Wilson's interval."""
        return wilson_interval(self._agreeing, self.samples)

    def observe(self, agrees: bool, image: bytes | None = None) -> GuardEvent | None:
        """Count a comparison.

        Args:
            agrees: Whether both variants gave the same top label.
            image: A digest of the pixels. The same image counts once among the comparisons that count: the test
                rests on independent ones, and one client that repeats one hard photo must not move everybody.

        Returns:
            The change of state that it brought, if any.
        """
        if image is not None:
            if image in self._known:
                return None
            self._known.add(image)
        self._seen.append((agrees, image))
        self._agreeing += agrees
        while self.samples > self.needed:
            self._forget_oldest()
        return self._watch() if self.state is GuardState.WATCHING else self._try_recovery()

    def forget(self) -> None:
        """Start with no comparisons, in the same state: what they compared is not what runs now."""
        self._seen.clear()
        self._known.clear()
        self._agreeing = 0

    def reset(self, why: str) -> GuardEvent:
        """Let traffic through again and start with no comparisons."""
        return self._change(GuardState.WATCHING, "reset", why)

    def _watch(self) -> GuardEvent | None:
        if self.samples < MIN_SAMPLES or self._agreeing > _most_alarming(self.samples, self.bound):
            return None
        chance = binomial_at_most(self._agreeing, self.samples, self.bound)
        why = (
            f"Only {self._agreeing} of the last {self.samples} compared images got the same top label from both "
            f"variants; with an agreement of {self.bound:g}, the bound, so few have a chance of {chance:.1g}."
        )
        event = self._change(GuardState.TRIPPED, "tripped", why)
        self.trips += 1
        return event

    def _try_recovery(self) -> GuardEvent | None:
        if not self.automatic or self.samples < self.needed:
            return None
        chance = binomial_at_least(self._agreeing, self.samples, self.bound)
        if chance >= RECOVERY_LEVEL:
            self.forget()
            return None
        why = (
            f"{self._agreeing} of {self.samples} images compared since got the same top label from both variants; "
            f"with an agreement of {self.bound:g}, the bound, so many have a chance of {chance:.1g}."
        )
        return self._change(GuardState.WATCHING, "recovered", why)

    def _change(self, state: GuardState, name: str, why: str) -> GuardEvent:
        event = GuardEvent(self._clock(), name, why, self.agreement(), self.samples)
        self.history.append(event)
        self.state = state
        self.forget()
        return event

    def _forget_oldest(self) -> None:
        agrees, image = self._seen.popleft()
        self._agreeing -= agrees
        if image is not None:
            self._known.discard(image)


@cache
def _most_alarming(samples: int, bound: float) -> int:
    """The most agreeing comparisons among `samples` that still trip; -1 when none do."""
    low, high = -1, samples  # `low` trips, `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_at_most(middle, samples, bound) < ALARM_LEVEL:
            low = middle
        else:
            high = middle
    return low


def smallest_recovery_window(bound: float) -> int:
    """The shortest window in which perfect agreement shows, at `RECOVERY_LEVEL`, that agreement is above the bound."""
    return math.floor(math.log(RECOVERY_LEVEL) / math.log(bound)) + 1
