"""Which device runs the next batch; a failed one leaves the rotation until it has been set up again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tessera.engine.backends.ascend.instance import Slot
from tessera.engine.backends.ascend.replica import Replica
from tessera.engine.errors import DeviceError, EngineError

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.5  # so it may be set up again when clients come back, after Retry-After: 1
LONGEST_RETRY_SECONDS = 60.0


@dataclass(eq=False)
class Member:
    """A device among those that take turns, as load balancers call it.

    Attributes:
        index: the device.
        replica: the model on it; None while it is down.
        free: slots that are not in use.
        healthy: whether it gets batches.
        failures: how often it left the rotation.
        last_error: what happened last; empty when nothing did.
    """

    index: int
    replica: Replica | None
    free: list[Slot] = field(default_factory=list)
    healthy: bool = True
    failures: int = 0
    last_error: str = ""

    def is_idle(self) -> bool:
        """Whether no batch is on it."""
        return self.replica is None or len(self.free) == len(self.replica.slots)


class DeviceBalancer:
    """Hands out slots, device after device.

    Args:
        replicas: by device.
        reopen: loads the model on a device again; raises when the device is still broken.
        timeout_ms: longest wait for a failed device to end what it runs.
        first_retry: seconds until a failed device is tried again; doubled after each try that fails.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        reopen: Callable[[int], Replica],
        timeout_ms: int,
        first_retry: float = FIRST_RETRY_SECONDS,
    ) -> None:
        self._members = [Member(replica.device.index, replica, replica.slots) for replica in replicas]
        self._reopen = reopen
        self._timeout_ms = timeout_ms
        self._first_retry = first_retry
        self._changed = threading.Condition()
        self._next = 0
        self._closed = False
        self._recoveries: list[threading.Thread] = []

    @property
    def members(self) -> Sequence[Member]:
        """The devices, for looking at."""
        return self._members

    @property
    def places(self) -> int:
        """How many batches the healthy devices hold."""
        with self._changed:
            return sum(len(m.replica.slots) for m in self._members if m.healthy and m.replica is not None)

    @contextmanager
    def slot(self) -> Iterator[tuple[Member, Slot]]:
        """A free slot of a healthy device, waiting for one; it is given back at the end.

        Raises:
            DeviceError: no device is healthy.
        """
        with self._changed:
            member = self._take_turn()
            slot = member.free.pop(0)
        try:
            yield member, slot
        finally:
            with self._changed:
                member.free.append(slot)
                self._changed.notify_all()

    def fail(self, member: Member, error: Exception) -> None:
        """Take a device out of the rotation, and begin to set it up again; batches that are on it go on."""
        with self._changed:
            member.last_error = str(error)
            if not member.healthy or self._closed:
                return
            member.healthy, member.failures = False, member.failures + 1
            self._changed.notify_all()
            logger.error("device %d leaves the rotation: %s", member.index, error)
            name = f"tessera-ascend-recovery-{member.index}"
            self._recoveries = [thread for thread in self._recoveries if thread.is_alive()]
            self._recoveries.append(threading.Thread(target=self._recover, args=(member,), name=name, daemon=True))
            self._recoveries[-1].start()

    def has_healthy(self) -> bool:
        """Whether any device gets batches."""
        with self._changed:
            return any(member.healthy for member in self._members)

    def close(self) -> None:
        """Wait for the batches in flight, then give every device back."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            recoveries = self._recoveries
        for thread in recoveries:
            thread.join()
        for member in self._members:
            self._take_down(member)

    def _take_turn(self) -> Member:
        while True:
            if not any(member.healthy for member in self._members):
                raise DeviceError(_describe_outage(self._members))
            turns = [(self._next + step) % len(self._members) for step in range(len(self._members))]
            ready = [position for position in turns if self._members[position].healthy and self._members[position].free]
            if ready:
                position = max(ready, key=lambda position: len(self._members[position].free))
                self._next = position + 1
                return self._members[position]
            self._changed.wait()

    def _recover(self, member: Member) -> None:
        if not self._take_down(member):
            return
        delay = self._first_retry
        while not self._wait_or_closed(delay):
            try:
                replica = self._reopen(member.index)
            except EngineError as error:
                member.last_error = str(error)
                delay = min(2 * delay, LONGEST_RETRY_SECONDS)
                logger.warning("device %d stays out for another %.0f s: %s", member.index, delay, error)
                continue
            with self._changed:
                member.replica, member.free, member.healthy = replica, replica.slots, True
                self._changed.notify_all()
            logger.warning("device %d is back in the rotation", member.index)
            return

    def _take_down(self, member: Member) -> bool:
        with self._changed:
            self._changed.wait_for(member.is_idle)
            replica, member.replica, member.free, member.healthy = member.replica, None, [], False
        return replica is None or replica.close(self._timeout_ms)

    def _wait_or_closed(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, seconds)


def _describe_outage(members: Sequence[Member]) -> str:
    causes = "; ".join(f"device {member.index}: {member.last_error}" for member in members)
    return f"No Ascend device is in the rotation ({causes}). They are tried again by themselves."
