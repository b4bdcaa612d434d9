"""The evaluation itself: photos are decoded by some threads while the variants run on those before them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tessera import engine
from tessera.engine.errors import ModelError
from tessera.models.evaluation.photos import LabelledPhoto, PhotoSet
from tessera.models.evaluation.state import MOST_NAMED, Block, StateFile
from tessera.models.preprocessing.decoding import DecodedBatch, decoded_ahead

# Decodes one photo into a row [height, width, 3]; returns what is wrong with it, or None.
Decode = Callable[[Path, NDArray[np.uint8]], str | None]

# Photos per line of the state file: seconds of work to lose, and a file of about a megabyte per million photos.
_BLOCK = 512


@dataclass(frozen=True)
class Watcher:
    """Who is told while it runs.

    Attributes:
        progress: photos done so far, and photos per second of this run. What it raises ends the evaluation, and all
            photos that were counted are kept.
        unreadable: a photo that cannot be read, and why.
    """

    progress: Callable[[int, float], None]
    unreadable: Callable[[Path, str], None]


def evaluate(
    photos: PhotoSet,
    sessions: Mapping[str, engine.Session],
    decode: Decode,
    shape: tuple[int, int, int],
    *,
    workers: int,
    watcher: Watcher,
    state: StateFile | None = None,
) -> Block:
    """Run every variant on every photo and count.

    Memory is bounded by a few batches, however many photos there are.

    Args:
        photos: what to look at.
        sessions: the variants, the one that others are compared with first.
        decode: reads a photo.
        shape: of a decoded photo, [height, width, 3].
        workers: decoding threads.
        watcher: told about progress and photos that cannot be read, which are counted and left out.
        state: where results are kept between runs; what it holds is not evaluated again.

    Raises:
        ModelError: a variant gives scores that are no numbers, or the state cannot be written.
        EngineError: a variant cannot run.
    """
    names = list(sessions)
    done = Block.empty(names) if state is None else state.done
    before, pending, started = done.photos, Block.empty(names), time.perf_counter()
    lap = started

    def keep() -> None:
        nonlocal pending
        if pending.photos:
            if state is None:
                done.merge(pending)
            else:
                state.append(pending)
            pending = Block.empty(names)

    with ThreadPoolExecutor(workers, thread_name_prefix="tessera-decode") as pool:
        todo = islice(photos.photos(), before, None)
        try:
            for batch in decoded_ahead(todo, lambda photo, row: decode(photo.path, row), shape, pool):
                block = _count(batch, sessions, watcher)
                now = time.perf_counter()
                block.seconds, lap = now - lap, now
                pending.merge(block)
                if pending.photos >= _BLOCK:
                    keep()
                seen = done.photos + pending.photos
                watcher.progress(seen, (seen - before) / (now - started))
        finally:
            # Also when it is stopped: the photos that were counted need not be counted again.
            keep()
            pool.shutdown(wait=True, cancel_futures=True)
    return done


def _count(
    batch: DecodedBatch[LabelledPhoto, str | None], sessions: Mapping[str, engine.Session], watcher: Watcher
) -> Block:
    block = Block.empty(list(sessions))
    block.photos = len(batch.photos)
    readable = []
    for row, (photo, problem) in enumerate(zip(batch.photos, batch.results, strict=True)):
        if (reason := problem.result()) is None:
            readable.append(row)
            continue
        watcher.unreadable(photo.path, reason)
        block.unreadable += 1
        block.named = [*block.named, str(photo.path)][:MOST_NAMED]
    if not readable:
        return block
    pixels = batch.rows(readable)
    labels = np.array([batch.photos[row].label for row in readable], np.intp)
    reference: NDArray[np.float32] | None = None
    for name, session in sessions.items():
        logits = session.run(pixels)
        if logits.ndim != 2 or logits.shape[1] <= labels.max():
            raise ModelError(f"Variant '{name}' gives scores of shape {list(logits.shape)}, too few for the labels.")
        broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(broken):
            raise ModelError(
                f"Variant '{name}' gives scores that are no numbers for {batch.photos[readable[broken[0]]].path}."
            )
        reference = logits if reference is None else reference
        block.tallies[name].add(reference, logits, labels)
    return block
