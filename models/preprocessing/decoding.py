"""Photos in batches, decoded by some threads while others run those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Photo = TypeVar("Photo")
Result = TypeVar("Result")

_BATCH = 16
_LARGEST_BATCH_BYTES = 64 * 1024 * 1024
# Batches that are being decoded while one is run: enough to even out photos of unequal size.
_AHEAD = 2


@dataclass(frozen=True)
class DecodedBatch(Generic[Photo, Result]):
    """Photos that are decoded, or being decoded.

    Attributes:
        photos: up to 16.
        pixels: uint8 [photos, height, width, 3]; a row may be read once its result is there.
        results: what decoding each gave.
    """

    photos: Sequence[Photo]
    pixels: NDArray[np.uint8]
    results: Sequence[Future[Result]]

    def rows(self, wanted: Sequence[int]) -> NDArray[np.uint8]:
        """The pixels of some photos, by their places."""
        return self.pixels if len(wanted) == len(self.photos) else self.pixels[wanted]


def decoded_ahead(
    photos: Iterator[Photo],
    decode: Callable[[Photo, NDArray[np.uint8]], Result],
    shape: tuple[int, int, int],
    pool: Executor,
) -> Iterator[DecodedBatch[Photo, Result]]:
    """Batches in order, with the next ones being decoded already; no more photos are asked for than those hold.

    Args:
        photos: what to decode.
        decode: writes a photo into its row [height, width, 3].
        shape: of such a row.
        pool: the threads that decode.
    """
    size = max(1, min(_BATCH, _LARGEST_BATCH_BYTES // int(np.prod(shape))))
    waiting: deque[DecodedBatch[Photo, Result]] = deque()
    while True:
        while len(waiting) <= _AHEAD and (chunk := list(islice(photos, size))):
            pixels = np.empty((len(chunk), *shape), np.uint8)
            results = [pool.submit(decode, photo, row) for photo, row in zip(chunk, pixels, strict=True)]
            waiting.append(DecodedBatch(chunk, pixels, results))
        if not waiting:
            return
        yield waiting.popleft()
