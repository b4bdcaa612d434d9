"""Threads that decode the images of requests into the rows that they run from."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tessera.app.imaging.decoder import ImageDecoder, OpenedImage
from tessera.app.imaging.memory import DecodeMemory, LocalMemory
from tessera.app.imaging.order import DecodeOrder, Job


class Decoding:
    """The images of one request on their way through the threads.

    Args:
        files: One image file each.
        rows: Where they go.
        over: Called once, when all are decoded or one is bad.
        withdraw: Called when the request was abandoned before all of it was decoded.
        decoder: Reads and decodes them.

    Attributes:
        seconds: What each image took of the clock; complete once all are decoded.
        spent: Seconds of a core that its images took so far.
        failures: What is wrong with images, by index. Images behind a bad one may not have been looked at, those before
            it have.
    """

    def __init__(
        self,
        files: Sequence[bytes],
        rows: np.ndarray,
        over: Callable[[Decoding], None],
        withdraw: Callable[[Decoding], None],
        decoder: ImageDecoder,
    ) -> None:
        self.seconds = [0.0] * len(files)
        self.failures: dict[int, Exception] = {}
        self.spent = 0.0
        self._large = False
        self._files = files
        self._rows = rows
        self._over = over
        self._withdraw = withdraw
        self._decoder = decoder
        self._opened: dict[int, OpenedImage] = {}
        self._lock = threading.Lock()
        self._left = len(files)
        self._working = 0  # threads
        self._abandoned = False
        self._then: Callable[[], None] | None = None

    @property
    def core_seconds(self) -> float:
        """What all images took of a core; 0 when one was large, which says nothing of what others take."""
        return 0.0 if self._large else self.spent

    def abandon(self, then: Callable[[], None]) -> bool:
        """Decode no more, and do not begin to call `over`; harmless when all is decoded.

        Args:
            then: Called by the last thread that still writes into the rows, when it no longer does.

        Returns:
            Whether there is none, and `then` will not be called.
        """
        with self._lock:
            self._abandoned = True
            self._then = then if self._working else None
            idle, left = not self._working, self._left
        if left:
            self._withdraw(self)
        return idle

    def look(self, index: int, queue: Callable[[OpenedImage], bool]) -> None:
        """Read an image's header, and have it wait for its turn; called on a thread of the pool.

        Args:
            index: Which image.
            queue: Lets it wait; returns whether it is small, and what has been read of it worth keeping.
        """

        def step() -> bool:
            opened = self._decoder.open(self._files[index])
            self._opened[index] = opened
            if not queue(opened):
                self._opened.pop(index, None)
            return False

        self._step(index, step)

    def decode(self, index: int, *, large: bool) -> bool:
        """Decode an image that has been looked at; called on a thread of the pool. Returns whether it was decoded."""

        def step() -> bool:
            self._large |= large
            opened = self._opened.pop(index, None) or self._decoder.open(self._files[index])
            opened.decode(self._rows[index], wanted=lambda: not self._abandoned)
            return True

        return self._step(index, step)

    def _step(self, index: int, step: Callable[[], bool]) -> bool:
        """Take a step with an image, unless its request was abandoned; it is done when the step says so, or fails."""
        with self._lock:
            if self._abandoned:
                return False
            self._working += 1
        started, on_core = time.perf_counter(), time.thread_time()
        taken, done = False, True
        if not self.failures or index < min(self.failures):  # else the request ends with an error anyway
            try:
                done = step()
                taken = True
            except Exception as error:
                with self._lock:
                    self.failures = {**self.failures, index: error}
        self.seconds[index] += time.perf_counter() - started
        with self._lock:
            self.spent += time.thread_time() - on_core
            self._left -= done
            last = done and self._left == 0 and not self._abandoned
        if last:
            self._over(self)
        with self._lock:
            self._working -= 1
            then = None if self._working else self._then
        if then is not None:
            then()
        return taken


class DecoderPool:
    """Decodes images side by side, cheap ones first and every client in its turn; see `tessera.app.imaging.order`.

    Args:
        decoder: What every thread decodes with, unless `start` says otherwise.
        threads: How many images at once. From the first large one on, one more thread decodes small ones beside them.
        memory: What large images take their memory from; None: this process has all of it.
    """

    def __init__(self, decoder: ImageDecoder, threads: int, memory: DecodeMemory | None = None) -> None:
        self._decoder = decoder
        self._memory = memory or LocalMemory()
        self._order: DecodeOrder[Decoding] = DecodeOrder(decoder.memory, threads)
        self._looks: deque[Callable[[bool], None]] = deque()
        self._ready = threading.Condition()
        self._asking = False  # a thread waits for memory: which large image is next has been settled
        self._express = False
        self._stopping = False
        for _ in range(threads):
            self._start_thread()

    def start(
        self,
        files: Sequence[bytes],
        rows: np.ndarray,
        over: Callable[[Decoding], None],
        *,
        client: str = "",
        deadline: float = math.inf,
        decoder: ImageDecoder | None = None,
    ) -> Decoding:
        """Begin to decode the images of a request.

        Args:
            files: One image file each, at least one.
            rows: Where they go, uint8 [len(files), height, width, 3].
            over: Called once, on the thread that was last: every image is decoded, or one of them is bad. So images can
                go to the engine without a detour over the thread that waits for the result. Must not raise.
            client: Who sent them.
            deadline: When they are worth nothing any more, on `time.perf_counter`; large images that would come later
                are refused with a `DeadlineUnreachableError`.
            decoder: What they are decoded with, for images of another size; of the same limits as the pool's own.

        Returns:
            What comes of it; the caller ends it with `Decoding.abandon`.
        """
        decoding = Decoding(files, rows, over, self._withdraw, decoder or self._decoder)
        with self._ready:
            self._looks.extend(partial(self._look, decoding, index, client, deadline) for index in range(len(files)))
            self._ready.notify(len(files))
        return decoding

    def stop(self) -> None:
        """End the threads after what they are at; what waits is not decoded."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()

    def _start_thread(self, *, express: bool = False) -> None:
        name = "tessera-express" if express else "tessera-decode"
        threading.Thread(target=self._work, args=(express,), name=name, daemon=True).start()

    def _work(self, express: bool) -> None:
        while True:
            with self._ready:
                step = None
                while not self._stopping and (step := self._next(express)) is None:
                    self._ready.wait()
            if step is None:
                return
            step(express)
            del step  # an idle thread must not hold a request's rows

    def _next(self, express: bool) -> Callable[[bool], None] | None:
        """What a thread should do now. Looking takes a moment, and decides what should be decoded first."""
        if self._looks:
            return self._looks.popleft()
        job = self._order.take(large=not (express or self._asking))
        if job is None:
            return None
        if not job.large:
            return partial(self._decode, job)
        self._asking = True
        if not self._express:
            self._express = True
            self._start_thread(express=True)
        return partial(self._decode_large, job)

    def _look(self, decoding: Decoding, index: int, client: str, deadline: float, express: bool) -> None:
        def queue(opened: OpenedImage) -> bool:
            job = Job(decoding, index, client, opened.cost)
            with self._ready:
                self._order.add(job, time.perf_counter(), deadline)
                if express and job.large:  # this thread may not take it, and those that sleep have not heard of it
                    self._ready.notify_all()
            return not job.large

        decoding.look(index, queue)

    def _decode_large(self, job: Job[Decoding], express: bool) -> None:
        try:
            grant = self._memory.take(job.share)
        finally:
            with self._ready:
                self._asking = False
                self._ready.notify_all()
        try:
            self._decode(job, express)
        finally:
            self._memory.give_back(grant)

    def _decode(self, job: Job[Decoding], _: bool) -> None:
        started = time.perf_counter()
        decoded = job.request.decode(job.index, large=job.large)
        with self._ready:
            self._order.finish(job, time.perf_counter() - started if decoded else None)

    def _withdraw(self, decoding: Decoding) -> None:
        with self._ready:
            self._order.withdraw(decoding)
