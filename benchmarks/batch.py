"""`tessera classify` over a folder against its parts alone, in turns: `python -m benchmarks.batch FOLDER`.

The ideal is all cores decoding, then all cores computing, with nothing between: 1 / (1 / engine + 1 / decode) photos a
second, as in `benchmarks.serving`. A round measures both parts and a batch job, with its file, over the same photos.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median

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


def main() -> None:
    """Print a line per round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=400, help="per round (default 400)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each with photos of its own (default 5)")
    arguments = parser.parse_args()
    settings, model = Settings(), open_model(None)
    decoder = ImageDecoder(model.preprocessing, max_pixels=settings.max_pixels)
    photos, shares = find_photos([arguments.folder]), []
    with open_session(model.variants["optimised"], settings) as session, tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            some = list(islice(photos, arguments.photos))
            decode, compute = _alone(some, decoder, session)
            ideal = 1 / (1 / decode + 1 / compute)
            rate = _together(some, decoder, session, model.labels, Path(folder) / f"{number}.jsonl")
            shares.append(rate / ideal)
            load = os.getloadavg()[0]
            print(
                f"round {number + 1}: {len(some)} photos, decode {decode:.1f}/s, engine {compute:.1f}/s, "
                f"together {rate:.1f}/s of {ideal:.1f}/s: {shares[-1]:.3f}, load {load:.1f}",
                flush=True,
            )
    print(f"median of {arguments.rounds} rounds: {median(shares):.3f}")


def _alone(photos: list[Photo], decoder: ImageDecoder, session: engine.Session) -> tuple[float, float]:
    """Photos per second that all cores decode, and that all cores compute."""
    pixels = np.empty((len(photos), *decoder.shape), np.uint8)
    started = time.perf_counter()
    with ThreadPoolExecutor(engine.cpu_budget()) as pool:
        list(pool.map(lambda pair: decoder.decode(pair[0].read(), pair[1]), zip(photos, pixels, strict=True)))
    decoded = time.perf_counter()
    for begin in range(0, len(photos), _BATCH):
        session.run(pixels[begin : begin + _BATCH])
    return len(photos) / (decoded - started), len(photos) / (time.perf_counter() - decoded)


def _together(
    photos: list[Photo], decoder: ImageDecoder, session: engine.Session, labels: tuple[str, ...], path: Path
) -> float:
    """Photos per second of a batch job."""
    started = time.perf_counter()
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
    return len(photos) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
