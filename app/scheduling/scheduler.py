"""The engine threads: take batches from the queue, run them, hand back the outcomes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tessera import engine
from tessera.app.errors import DeviceFailedError, InferenceError, ModelUnavailableError, RequestError
from tessera.app.scheduling.lanes import variant_of
from tessera.app.scheduling.queue import ImageQueue
from tessera.app.scheduling.rows import RowBuffers, check_rows, row_shapes
from tessera.app.scheduling.shares import EngineShares
from tessera.app.scheduling.snapshot import Snapshot
from tessera.app.scheduling.ticket import Batch, HeatMaps, InputType, Outcome, Priority, Rows, Ticket
from tessera.engine.errors import DeviceError
from tessera.models.preprocessing.image_size import Size
from tessera.wording import counted

logger = logging.getLogger(__name__)

ENGINE_THREAD = "tessera-engine"

Around = Callable[[Batch], AbstractContextManager[object]]


class Runner(Protocol):
    """What the scheduler needs of an `tessera.engine.Session`."""

    @property
    def parallel_runs(self) -> int:
        """How many runs at once are worth it now, at least 1."""

    @property
    def parallel_images(self) -> int:
        """How many images of a batch run side by side, at least 1."""

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run uint8 [N, height, width, 3] or float32 [N, 3, height, width]; returns float32 logits [N, classes]."""

    def explain(
        self, x: npt.NDArray[Any], top: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], Sequence[engine.HeatMaps | None]]:
        """The same, and where the `top` highest scores of each image come from; None where that is 0."""


class Observer(Protocol):
    """What is told about each batch; called on an engine thread."""

    def batch_finished(self, variant: str, images: int, seconds: float, share: float) -> None:
        """A batch of `images` of `variant` ran for `seconds`; `share` is its part of the engine's time."""


class Scheduler:
    """Owns the queue and the threads that run batches, as many as the sessions of all variants can use at once.

    On a CPU that is one thread for all variants: a session uses every core of the budget, and two batches at once would
    only share them. On devices the next batch is copied while another executes. A thread forms a batch the moment it is
    free, so batches grow with load and a lone request never waits.

    Args:
        runners: The session of each variant, or of each lane where there are several sizes; a lane counts as a
            variant of its own here.
        size: Height and width of the model's images, in pixels; one number where they are equal.
        further: The sizes of the lanes that are not for images of that size.
        max_batch: Most images in one batch.
        capacity: Most images admitted and not yet in a batch.
        deliver: Called on an engine thread, at most twice per batch, with requests that are over: DONE ones, whose
            every outcome is there, and EXPIRED ones, whose `failure` says why they were dropped.
        observer: Told about each batch.
        clock: Seconds on a monotonic clock; deadlines are readings of it.
        decoders: How many images are decoded at a time on the engine's cores.
        around: Entered on the engine thread around each run of a batch.
        retired: Variants that are known and not served until `replace` gives them a runner.
    """

    def __init__(
        self,
        runners: Mapping[str, Runner],
        *,
        size: Size,
        max_batch: int,
        capacity: int,
        deliver: Callable[[list[Ticket]], None],
        observer: Observer,
        clock: Callable[[], float] = time.perf_counter,
        decoders: int = 1,
        around: Around = nullcontext,
        retired: Collection[str] = (),
        further: Mapping[str, Size] | None = None,
    ) -> None:
        self._runners = dict(runners)
        self._deliver = deliver
        self._observer = observer
        self._clock = clock
        self._around = around
        self._retired = set(retired)
        self._queue = ImageQueue(
            [*self._runners, *retired],
            capacity=capacity,
            max_batch=max_batch,
            clock=clock,
            decoders=decoders,
            parallel=self._parallel,
            abreast=lambda variant: self._runners[variant].parallel_images,
        )
        self._running: list[Runner] = []  # what engine threads are in
        self._shares = EngineShares()
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # there is something to do
        self._over = threading.Condition(lock)  # a batch or a request is over
        self._stopping = False
        self._begun = 0
        sizes = dict.fromkeys([*self._runners, *retired], size) | dict(further or {})
        self._shapes = {lane: row_shapes(size) for lane, size in sizes.items()}
        self._threads = [
            threading.Thread(target=self._loop, args=(max_batch,), name=ENGINE_THREAD, daemon=True)
            for _ in range(self._parallel())
        ]

    def start(self) -> None:
        """Start the engine threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let running batches end, then stop; returns when the threads have ended. Queued requests are not run."""
        with self._work:
            self._stopping = True
            self._work.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    @property
    def alive(self) -> bool:
        """Whether every engine thread runs."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def begun(self) -> int:
        """How many batches have begun so far."""
        return self._begun

    @property
    def depth(self) -> int:
        """Images admitted and not yet in a batch."""
        with self._work:
            return self._queue.depth

    def snapshot(self) -> Snapshot:
        """Depths, predictions, the measured table and the age of the oldest work, at this moment."""
        with self._work:
            return self._queue.snapshot()

    def check_room(
        self, variant: str | None = None, *, deadline: float | None = None, priority: Priority = Priority.NORMAL
    ) -> None:
        """Raise what `admit` of a single image would raise now; without a variant, of any variant."""
        with self._work:
            self._check_served(variant)
            self._queue.check_room(variant, deadline=deadline, priority=priority)

    def admit(
        self,
        variant: str,
        images: int,
        *,
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        dtype: InputType = "uint8",
        alone: bool = False,
        explain: int = 0,
    ) -> Ticket:
        """Reserve room for `images`; every ticket must end in `submit` or `cancel`.

        Args:
            variant: Who answers.
            images: How many, at least 1.
            deadline: Reading of the clock after which the answer is worthless; None: it is always wanted.
            priority: How urgent the request is.
            dtype: What will be submitted: "uint8" pixels, NHWC, or "float32" normalised tensors, NCHW.
            alone: Whether its images are to run one at a time, with no others beside them.
            explain: Of how many of the highest scores it is asked where they come from. A batch with such a request
                in it runs with `Runner.explain`, all others with `Runner.run`.

        Raises:
            QueueFullError: There is no room.
            DeadlineUnreachableError: By the measured speed and backlog it could not be answered before `deadline`.
            ModelUnavailableError: The variant has been retired.
        """
        with self._work:
            self._check_served(variant)
            return self._queue.admit(
                variant, images, deadline=deadline, priority=priority, dtype=dtype, alone=alone, explain=explain
            )

    def submit(self, ticket: Ticket, rows: Rows) -> None:
        """Queue an admitted request.

        Args:
            ticket: As returned by `admit`.
            rows: uint8 [images, height, width, 3] or float32 [images, 3, height, width] as admitted, in one array or
                as a sequence of row views (which may lie in shared memory); must not change until the ticket is
                delivered.

        Raises:
            ValueError: The rows are not of the admitted type, shape or number.
        """
        check_rows(rows, ticket.images, ticket.dtype, self._shapes[ticket.variant])
        with self._work:
            self._queue.enqueue(ticket, rows)
            self._work.notify()

    def cancel(self, ticket: Ticket) -> None:
        """Drop a request whose answer is not wanted; harmless when it is over, or is being delivered right now."""
        with self._work:
            if self._queue.cancel(ticket):
                self._work.notify()
                self._over.notify_all()

    def measured(self, variant: str, images: int, seconds: float) -> None:
        """Seed the table of batch times with a warm-up batch, so that the first predictions are true."""
        with self._work:
            self._queue.table.seed(variant, images, seconds)

    def learn(self) -> None:
        """Enter the times of the last batches into the table, now that no answer waits for that."""
        with self._work:
            self._queue.table.learn()

    def decoded(self, seconds: float) -> None:
        """Count an image whose decoding took `seconds` of a core; predictions include it."""
        with self._work:
            self._queue.decoded(seconds)

    def replace(self, variant: str, runner: Runner) -> Runner | None:
        """Run what is taken from now on with another runner; a retired variant is served again.

        Blocks until no batch runs with the one before.

        Returns:
            The runner before, which no batch uses any more; None where the variant was retired.
        """
        with self._work:
            before = self._runners.get(variant)
            self._runners[variant] = runner
            self._retired.discard(variant)
            self._over.wait_for(lambda: before is None or before not in self._running)
            return before

    def retire(self, variant: str) -> Runner | None:
        """Admit no more requests for a variant; blocks until those that were admitted are over.

        Returns:
            Its runner, which no batch uses any more; None where it was retired before.
        """
        with self._work:
            runner = self._runners.get(variant)
            self._retired.add(variant)
            self._over.wait_for(
                lambda: (
                    (self._stopping or not self._queue.waits_for(variant))
                    and (runner is None or runner not in self._running)
                )
            )
            return self._runners.pop(variant, None)

    def _check_served(self, variant: str | None) -> None:
        if variant is not None and variant in self._retired:
            raise ModelUnavailableError(f"The variant {variant_of(variant)!r} is unloaded.")

    def _parallel(self) -> int:
        """How many batches may run at once: what the sessions allow, which is less while a device is out."""
        return min((runner.parallel_runs for runner in self._runners.values()), default=1)

    def _loop(self, max_batch: int) -> None:
        rows = RowBuffers(max_batch, self._shapes)
        while True:
            with self._work:
                batch = self._queue.take()
                dropped = self._queue.take_dropped()
                if batch is None and not dropped and not self._stopping:
                    self._work.wait(self._pause())
                    continue
                if self._stopping:
                    return
                runner = None if batch is None else self._runners[batch.variant]
                if runner is not None:
                    self._begun += 1
                    self._running.append(runner)
                    self._work.notify()  # where more may run and more waits, the next thread takes it
                if dropped:
                    self._over.notify_all()
            if dropped:
                self._deliver(dropped)
            if batch is None or runner is None:
                continue
            outcomes = self._run(batch, runner, rows)
            with self._work:
                finished = self._queue.finish(batch, outcomes)
                self._running.remove(runner)
                self._over.notify_all()
            if finished:
                self._deliver(finished)

    def _pause(self) -> float | None:
        wake_at = self._queue.wake_at()
        return None if wake_at is None else max(0.0, wake_at - self._clock())

    def _run(self, batch: Batch, runner: Runner, rows: RowBuffers) -> list[Outcome]:
        """Run a batch; when it fails, run its images one by one, so that only the guilty ones fail."""
        started = self._clock()
        self._shares.started(started)
        try:
            gathered = rows.gather(batch)
            with self._around(batch):
                logits, maps = _infer(runner, gathered, batch.explain)
        except Exception as error:
            self._shares.ended(self._clock())
            if len(batch) == 1:
                # What became of a device, its backend has logged; where none is left this would be every image.
                traceback = None if isinstance(error, DeviceError) else error
                logger.error("the engine failed on an image: %s", error, exc_info=traceback)
                return self._outcomes(batch, [None], [_failure(error)], [None], started)
            logger.warning("a batch of %d failed, its images are run one by one: %s", len(batch), error)
            return [
                self._run(Batch(batch.variant, batch.dtype, (member,)), runner, rows)[0] for member in batch.members
            ]
        outcomes = self._outcomes(batch, list(logits), [None] * len(batch), maps, started)
        seconds = outcomes[0].compute_seconds
        self._observer.batch_finished(batch.variant, len(batch), seconds, self._shares.ended(started + seconds))
        return outcomes

    def _outcomes(
        self,
        batch: Batch,
        logits: list[np.ndarray | None],
        failures: list[RequestError | None],
        maps: Sequence[HeatMaps | None],
        started: float,
    ) -> list[Outcome]:
        seconds = self._clock() - started
        return [
            Outcome(row, failure, started - ticket.queued_at, seconds, len(batch), heat_maps)
            for (ticket, _), row, failure, heat_maps in zip(batch.members, logits, failures, maps, strict=True)
        ]


def _infer(
    runner: Runner, rows: npt.NDArray[Any], explain: Sequence[int]
) -> tuple[npt.NDArray[np.float32], list[HeatMaps | None]]:
    maps: list[HeatMaps | None] = [None] * len(rows)
    if explain:
        logits, explained = runner.explain(rows, explain)
        maps = [None if one is None else HeatMaps(*one) for one in explained]
    else:
        logits = runner.run(rows)
    if logits.ndim != 2 or len(logits) != len(rows):
        raise InferenceError(f"the engine returned shape {logits.shape} for {counted(len(rows), 'image')}")
    if not np.isfinite(logits).all():
        raise InferenceError("the engine returned values that are not finite")
    return logits, maps


def _failure(error: Exception) -> RequestError:
    failure: RequestError = InferenceError("The engine failed on this image.")
    if isinstance(error, DeviceError):
        failure = DeviceFailedError("The accelerator failed; it is being set up again.", retry_after=1)
    failure.__cause__ = error
    return failure
