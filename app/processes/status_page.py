"""Shared memory in which the engine process shows its state, and each frontend that it lives."""

from __future__ import annotations

import json
import math
import mmap
import os
import time

import numpy as np

from tessera.app.errors import DeadlineUnreachableError, QueueFullError
from tessera.app.processes.watchdog import Running
from tessera.app.scheduling.latency import BatchStatistics
from tessera.app.scheduling.snapshot import Snapshot, VariantSnapshot, seconds_to_wait
from tessera.app.scheduling.ticket import Priority

_BYTES = 128 * 1024
_SNAPSHOT_AT = 4096
_MOST_VARIANTS = 64
# Places among the integers and the reals; each is 8 bytes, aligned, and so is never seen half written.
_HEARTBEAT, _DEPTH, _BACKGROUND, _VERSION, _LENGTH, _PARALLEL = range(6)
_PREDICTED = 128
_MOST_BATCHES = 64  # at once: two on each of 32 devices
_STARTED, _LIMIT = 64, 192
_FRONTENDS = 256  # heartbeats, 64 at most; the engine's words end here


def create_status_page() -> int:
    """Make the anonymous file of a status page; returns its descriptor."""
    file = os.memfd_create("tessera-status", os.MFD_CLOEXEC)
    os.ftruncate(file, _BYTES)
    return file


class StatusPage:
    """Written by the engine process, but for one word of each frontend. The supervisor wipes it for the next one.

    Args:
        file: A descriptor of `create_status_page`; the caller still owns it.
    """

    def __init__(self, file: int) -> None:
        self._memory = np.frombuffer(mmap.mmap(file, _BYTES), np.uint8)
        self._integers = self._memory[:_SNAPSHOT_AT].view(np.int64)
        self._reals = self._memory[:_SNAPSHOT_AT].view(np.float64)
        self._started = self._reals[_STARTED : _STARTED + _MOST_BATCHES]
        self._limits = self._reals[_LIMIT : _LIMIT + _MOST_BATCHES]
        self._places = list(reversed(range(_MOST_BATCHES)))  # free ones; only the engine process uses this list

    def wipe(self) -> None:
        """Forget everything of the engine process, for the next one."""
        self._integers[:_FRONTENDS] = 0

    def beat(self) -> None:
        """Say that the event loop of the engine process works."""
        self._integers[_HEARTBEAT] += 1

    @property
    def heartbeat(self) -> int:
        """A number that changes as long as the engine process works."""
        return int(self._integers[_HEARTBEAT])

    def frontend_beat(self, index: int) -> None:
        """Say that the event loop of a frontend works."""
        self._integers[_FRONTENDS + index] += 1

    def frontend_heartbeat(self, index: int) -> int:
        """A number that changes as long as a frontend works."""
        return int(self._integers[_FRONTENDS + index])

    def batch_started(self, limit: float) -> int:
        """Say that a batch has begun, and after how many seconds it counts as hung; from any thread.

        Returns:
            Its place, for `batch_ended`.
        """
        place = self._places.pop()
        self._limits[place] = limit
        self._started[place] = time.perf_counter()
        return place

    def batch_ended(self, place: int) -> None:
        """Say that a batch is over."""
        self._started[place] = 0.0
        self._places.append(place)

    @property
    def overdue(self) -> Running | None:
        """The running batch that is most over its limit by the clock, if any is.

        Start and limit are two words, and one look may see them of two batches; the next look does not.
        """
        started, limits = self._started.copy(), self._limits.copy()
        late = np.where(started > 0, time.perf_counter() - started - limits, -math.inf)
        place = int(late.argmax())
        return Running(float(started[place]), float(limits[place])) if late[place] > 0 else None

    def show_depth(self, depth: int, background: int) -> None:
        """Show how many images wait: of NORMAL and HIGH priority, and of BACKGROUND."""
        self._integers[_DEPTH] = depth
        self._integers[_BACKGROUND] = background

    def show(self, snapshot: Snapshot) -> None:
        """Show the scheduler's state; a reader never sees half of it."""
        depths = [variant.depth for variant in snapshot.variants.values()]
        self.show_depth(
            sum(depth[Priority.NORMAL] + depth[Priority.HIGH] for depth in depths),
            sum(depth[Priority.BACKGROUND] for depth in depths),
        )
        self._integers[_PARALLEL] = snapshot.parallel
        for place, name in enumerate(sorted(snapshot.variants)[:_MOST_VARIANTS]):
            self._reals[_PREDICTED + place] = snapshot.variants[name].predicted_seconds
        data = _encode(snapshot)
        if len(data) <= _BYTES - _SNAPSHOT_AT:
            self._integers[_VERSION] += 1  # odd while it is being written
            self._memory[_SNAPSHOT_AT : _SNAPSHOT_AT + len(data)] = np.frombuffer(data, np.uint8)
            self._integers[_LENGTH] = len(data)
            self._integers[_VERSION] += 1

    def snapshot(self) -> Snapshot:
        """The last state that was shown, a moment old; an empty one when there is none."""
        for _ in range(1000):
            version, length = int(self._integers[_VERSION]), int(self._integers[_LENGTH])
            data = self._memory[_SNAPSHOT_AT : _SNAPSHOT_AT + length].tobytes()
            if version % 2 == 0 and version == int(self._integers[_VERSION]):
                return _decode(data) if version > 0 else Snapshot({}, 0.0, 0.0)
            time.sleep(0)
        return Snapshot({}, 0.0, 0.0)  # its writer died half-way; the supervisor is about to wipe it

    def check_room(self, place: int, images: int, *, capacity: int, deadline: float | None, priority: Priority) -> None:
        """Raise what the engine would most likely answer to a request, without asking it.

        Args:
            place: The lane's index in the sorted names.
            images: How many.
            capacity: Most images that may wait.
            deadline: Reading of `time.perf_counter`; None for none.
            priority: How urgent it is. Only for NORMAL is there a prediction here.

        Raises:
            QueueFullError: There is no room.
            DeadlineUnreachableError: The answer would come too late.
        """
        if priority is Priority.BACKGROUND:
            return
        depth = int(self._integers[_DEPTH])
        predicted = float(self._reals[_PREDICTED + place])
        if depth + images > capacity:
            wait = seconds_to_wait(predicted)
            raise QueueFullError(
                f"The queue is full: {depth} of {capacity} images are waiting and the request has {images}. "
                f"Try again in {wait} s.",
                retry_after=wait,
            )
        idle = depth == 0 and np.count_nonzero(self._started) < max(1, self._integers[_PARALLEL])
        if deadline is None or priority is not Priority.NORMAL or idle:
            return
        left = deadline - time.perf_counter()
        if predicted > left:
            late = seconds_to_wait(predicted - left)
            raise DeadlineUnreachableError(
                f"The answer may take {predicted * 1000:.0f} ms and the request allows "
                f"{max(left, 0) * 1000:.0f} ms. Try again in {late} s, or allow more time.",
                retry_after=late,
            )


def _encode(snapshot: Snapshot) -> bytes:
    variants = {
        name: [
            {priority.value: images for priority, images in variant.depth.items()},
            variant.predicted_seconds,
            {size: [row.batches, row.seconds, row.mean, row.tail] for size, row in variant.batches.items()},
        ]
        for name, variant in snapshot.variants.items()
    }
    return json.dumps([variants, snapshot.running_seconds, snapshot.oldest_seconds, snapshot.parallel]).encode()


def _decode(data: bytes) -> Snapshot:
    variants, running_seconds, oldest_seconds, parallel = json.loads(data)
    return Snapshot(
        {
            name: VariantSnapshot(
                {Priority(priority): images for priority, images in depth.items()},
                predicted,
                {int(size): BatchStatistics(*row) for size, row in batches.items()},
            )
            for name, (depth, predicted, batches) in variants.items()
        },
        running_seconds,
        oldest_seconds,
        parallel,
    )
