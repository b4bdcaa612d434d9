"""`tessera classify` over a folder against its parts alone, in turns: `python -m benchmarks.batch FOLDER`.

The ideal is all cores decoding, then all cores computing, with nothing between: 1 / (1 / engine + 1 / decode) photos a
second, as in `benchmarks.serving`. A round does both parts and a batch job, with its file, over the same photos.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from tessera import engine
from tessera.app.commands.batch.output import BatchOutput
from tessera.app.commands.batch.running import Unreadable, classify
from tessera.app.commands.batch.sources import Photo, find_photos
from tessera.app.commands.batch.tables import Row
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.protocol.classify import top_predictions
from tessera.app.served.loading import default_decode_threads, open_session
from tessera.app.settings import Settings
from tessera.models.registry import open_model

_BATCH = 16


class Spent(NamedTuple):
    """Seconds by the clock, and of processors."""

    wall: float
    cpu: float


def main() -> None:
    """Print the medians of the ratios within rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=128, help="per round (default 128)")
    parser.add_argument("--rounds", type=int, default=16, help="rounds, each with photos of its own (default 16)")
    arguments = parser.parse_args()
    settings, model = Settings(), open_model(None)
    decoder = ImageDecoder(model.preprocessing, max_pixels=settings.max_pixels)
    photos, rounds = find_photos([arguments.folder]), []
    with open_session(model.variants["optimised"], settings) as session, tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            some = list(islice(photos, arguments.photos))
            turns: list[Callable[[], None]] = [
                partial(_alone, some, decoder, session),
                partial(_together, some, decoder, session, model.labels, Path(folder) / f"{number}.jsonl"),
            ]
            # Who goes first changes, as other load on the machine does.
            spent = [_timed(turn) for turn in (turns if number % 2 else reversed(turns))]
            rounds.append(spent if number % 2 else spent[::-1])
    wall = median(alone.wall / together.wall for alone, together in rounds)
    cpu = median(alone.cpu / together.cpu for alone, together in rounds)
    rate = arguments.photos / median(together.wall for _, together in rounds)
    print(
        f"{arguments.rounds} rounds of {arguments.photos} photos, load {os.getloadavg()[0]:.1f}: {rate:.1f} photos/s; "
        f"of the parts alone: {wall:.3f} by the clock, {cpu:.3f} by processor time"
    )


def _timed(turn: Callable[[], None]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    turn()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def _alone(photos: list[Photo], decoder: ImageDecoder, session: engine.Session) -> None:
    """All cores decode, then all cores compute."""
    pixels = np.empty((len(photos), *decoder.shape), np.uint8)
    with ThreadPoolExecutor(engine.cpu_budget()) as pool:
        list(pool.map(lambda pair: decoder.decode(pair[0].read(), pair[1]), zip(photos, pixels, strict=True)))
    for begin in range(0, len(photos), _BATCH):
        session.run(pixels[begin : begin + _BATCH])


def _together(
    photos: list[Photo], decoder: ImageDecoder, session: engine.Session, labels: tuple[str, ...], path: Path
) -> None:
    """A batch job."""
    with (
        BatchOutput(path, {}, 5) as output,
        closing(classify(iter(photos), session, decoder, default_decode_threads())) as outcomes,
    ):
        for batch in outcomes:
            rows: list[Row] = []
            for outcome in batch:
                assert not isinstance(outcome, Unreadable)
                rows.append({"file": str(outcome.filename), "predictions": top_predictions(outcome.logits, labels, 5)})
            output.append(rows)
        output.finish()


if __name__ == "__main__":
    main()
