"""Photos through a session in batches of 16: decoded ahead of it, and written of while the next batch runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tessera import engine
from tessera.app.commands.batch.sources import Photo
from tessera.app.commands.batch.tables import Row
from tessera.app.errors import RequestError
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.protocol.classify import Classified, top_predictions
from tessera.models.preprocessing.decoding import DecodedBatch, decoded_ahead


class Unreadable(NamedTuple):
    """A photo without scores, and why."""

    filename: str
    reason: str


Outcome = Classified | Unreadable


def row_of(outcome: Outcome, labels: Sequence[str], top_k: int) -> Row:
    """What is written of an outcome."""
    if isinstance(outcome, Unreadable):
        return {"file": outcome.filename, "error": outcome.reason}
    return {"file": str(outcome.filename), "predictions": top_predictions(outcome.logits, labels, top_k)}


def classify(
    photos: Iterator[Photo], session: engine.Session, decoder: ImageDecoder, decode_threads: int
) -> Generator[list[Outcome], None, None]:
    """Outcomes in the order of the photos, 16 at a time; memory is that of a few batches.

    The same photos give the same batches, so a batch that is run again gives the same scores.

    Raises:
        EngineError: the session cannot run.
    """
    places = session.parallel_runs
    running: deque[Future[list[Outcome]]] = deque()
    decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="tessera-decode")
    runners = ThreadPoolExecutor(places, thread_name_prefix="tessera-run")
    try:
        for batch in decoded_ahead(photos, partial(_decode, decoder), decoder.shape, decoders):
            running.append(runners.submit(_run, session, batch))
            if len(running) > places:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for pool in (runners, decoders):
            pool.shutdown(wait=True, cancel_futures=True)


def _decode(decoder: ImageDecoder, photo: Photo, row: npt.NDArray[np.uint8]) -> float | str:
    """Seconds that it took, or what is wrong with the photo."""
    started = time.perf_counter()
    try:
        decoder.decode(photo.read(), row)
    except OSError as error:
        return error.strerror or str(error)
    except RequestError as error:
        return str(error)
    return time.perf_counter() - started


def _run(session: engine.Session, batch: DecodedBatch[Photo, float | str]) -> list[Outcome]:
    decoded = [result.result() for result in batch.results]
    readable = [place for place, found in enumerate(decoded) if not isinstance(found, str)]
    started = time.perf_counter()
    logits = iter(session.run(batch.rows(readable)) if readable else ())
    seconds = time.perf_counter() - started
    return [
        Unreadable(photo.name, found)
        if isinstance(found, str)
        else Classified(photo.name, next(logits), found, 0.0, seconds, len(readable))
        for photo, found in zip(batch.photos, decoded, strict=True)
    ]
