"""Threads that decode the images of requests into the rows that they run from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np

from tessera.app.imaging.decoder import ImageDecoder


class Decoding:
    """The images of one request on their way through the threads.

    Attributes:
        seconds: What each image took of the clock; complete once all are decoded.
        core_seconds: What all of them took of a core.
        failures: What is wrong with images, by index. Images behind a bad one may not have been looked at, those before
            it have.
    """

    def __init__(self, files: Sequence[bytes], rows: np.ndarray, over: Callable[[Decoding], None]) -> None:
        self.seconds = [0.0] * len(files)
        self.core_seconds = 0.0
        self.failures: dict[int, Exception] = {}
        self._files = files
        self._rows = rows
        self._over = over
        self._lock = threading.Lock()
        self._left = len(files)
        self._working = 0  # threads
        self._abandoned = False
        self._then: Callable[[], None] | None = None

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
            return not self._working

    def run(self, index: int, decoder: ImageDecoder) -> None:
        """Decode one image; called on a thread of the pool."""
        with self._lock:
            if self._abandoned:
                return
            self._working += 1
        wanted = not self.failures or index < min(self.failures)  # else the request ends with an error anyway
        core_seconds = self._decode(index, decoder) if wanted else 0.0
        with self._lock:
            self.core_seconds += core_seconds
            self._left -= 1
            last = self._left == 0 and not self._abandoned
        if last:
            self._over(self)
        with self._lock:
            self._working -= 1
            then = None if self._working else self._then
        if then is not None:
            then()

    def _decode(self, index: int, decoder: ImageDecoder) -> float:
        started, on_core = time.perf_counter(), time.thread_time()
        try:
            decoder.decode(self._files[index], self._rows[index])
        except Exception as error:
            with self._lock:
                self.failures = {**self.failures, index: error}
        self.seconds[index] = time.perf_counter() - started
        return time.thread_time() - on_core


class DecoderPool:
    """Decodes images side by side, in the order in which they come.

    Args:
        decoder: What every thread decodes with.
        threads: How many images at once.
    """

    def __init__(self, decoder: ImageDecoder, threads: int) -> None:
        self._decoder = decoder
        self._waiting: SimpleQueue[tuple[Decoding, int] | None] = SimpleQueue()
        self._threads = threads
        for _ in range(threads):
            threading.Thread(target=self._work, name="tessera-decode", daemon=True).start()

    def start(self, files: Sequence[bytes], rows: np.ndarray, over: Callable[[Decoding], None]) -> Decoding:
        """Begin to decode the images of a request.

        Args:
            files: One image file each, at least one.
            rows: Where they go, uint8 [len(files), size, size, 3].
            over: Called once, on the thread that was last: every image is decoded, or one of them is bad. So images can
                go to the engine without a detour over the thread that waits for the result. Must not raise.

        Returns:
            What comes of it; whoever starts it ends it with `Decoding.abandon`.
        """
        decoding = Decoding(files, rows, over)
        for index in range(len(files)):
            self._waiting.put((decoding, index))
        return decoding

    def stop(self) -> None:
        """End the threads after what they are at; what waits is not decoded unless it came first."""
        for _ in range(self._threads):
            self._waiting.put(None)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            decoding, index = job
            decoding.run(index, self._decoder)
            del job, decoding  # an idle thread must not hold a request's rows
