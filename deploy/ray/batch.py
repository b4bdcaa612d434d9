"""Many photos through actors of a Ray cluster: what `tessera classify` writes of them, made by all of its nodes.

python deploy/ray/batch.py photos/ shard-0000.tar --output labels.parquet

Photos and model must lie where every node reads them. Settings come from `TESSERA_*`. See docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import ray

from tessera.app.commands.batch.running import classify, row_of
from tessera.app.commands.batch.sources import find_portion, portions
from tessera.app.commands.batch.tables import Row, check_format, write_table
from tessera.app.errors import TesseraError
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.protocol.classify import resolve_top_k
from tessera.app.served.loading import open_configured_model, open_session
from tessera.app.served.selection import check_variant, find_model
from tessera.app.settings import Settings
from tessera.engine import EngineError
from tessera.engine.quantize.files import check_target, whole_file
from tessera.models.package import read_package
from tessera.wording import counted

# Names of photos that an actor takes at once: many batches of 16, so that the same ones form as in a single process.
_PORTION = 256


class Classifier:
    """An actor: the model, loaded once.

    Args:
        settings: Which model, and how.
        variant: Which of its variants.
        top_k: Predictions per photo.
        cpus: Threads.
    """

    def __init__(self, settings: Settings, variant: str, top_k: int, cpus: int) -> None:
        settings = settings.model_copy(update={"threads": settings.threads or cpus})
        model = open_configured_model(settings)
        self._session = open_session(model.variants[variant], settings)
        self._decoder = ImageDecoder(
            model.preprocessing, max_pixels=settings.max_pixels, decode_scale=settings.decode_scale
        )
        self._labels, self._top_k = model.labels, top_k
        self._decode_threads = settings.decode_threads or max(2, cpus // 2)

    def __call__(self, portion: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield rows, as JSON, in the order of the photos."""
        photos = find_portion(map(os.fsdecode, portion["name"]))
        for outcomes in classify(photos, self._session, self._decoder, self._decode_threads):
            yield {"row": np.array([json.dumps(row_of(outcome, self._labels, self._top_k)) for outcome in outcomes])}


def main() -> int:
    """Returns the exit code: 1 when any photo could not be read."""
    arguments = _arguments()
    settings = Settings()
    variant = arguments.variant or settings.default_variant
    try:
        check_variant(variant, "--variant")
        check_format(arguments.output)
        check_target(arguments.output)
        top_k = resolve_top_k(arguments.top_k, len(read_package(find_model(settings)).labels))
        ray.init(log_to_driver=False)
        rows = _classified(arguments, settings, variant, top_k)
        seen: Counter[str] = Counter()
        with whole_file(arguments.output) as file:
            write_table(_watched(rows, seen), top_k, arguments.output, file)
    except (TesseraError, EngineError) as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 1
    photos = counted(seen["photos"], "photo", form=",")
    print(f"tessera: {arguments.output}: {photos}; {seen['unreadable']:,} could not be read.", file=sys.stderr)
    return 1 if seen["unreadable"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sources", nargs="+", type=Path, help="folders, tar files, lists of paths, photos")
    parser.add_argument("--output", required=True, type=Path, help="file that ends in .jsonl, .csv or .parquet")
    parser.add_argument("--variant", help="default: the setting default_variant")
    parser.add_argument("--top-k", help="labels per photo (default 5)")
    parser.add_argument("--cpus", type=int, default=2, help="of an actor (default 2)")
    parser.add_argument("--actors", type=int, help="default: as many as the cluster has CPUs for")
    return parser.parse_args()


def _classified(arguments: argparse.Namespace, settings: Settings, variant: str, top_k: int) -> Iterator[Row]:
    """Rows in the order of the photos, as `tessera classify` has it."""
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    actors = arguments.actors or max(1, int(ray.cluster_resources().get("CPU", 1)) // arguments.cpus)
    found = ray.data.from_arrow(
        [
            pyarrow.table({"name": [os.fsencode(name) for name in names]})
            for names in portions(arguments.sources, _PORTION)
        ]
    )
    rows = found.map_batches(
        Classifier,
        batch_size=None,  # a portion
        fn_constructor_args=(settings, variant, top_k, arguments.cpus),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=arguments.cpus,
    )
    return (json.loads(entry["row"]) for entry in rows.iter_rows())


def _watched(rows: Iterator[Row], seen: Counter[str]) -> Iterator[Row]:
    for row in rows:
        seen["photos"] += 1
        if "error" in row:
            seen["unreadable"] += 1
            print(f"tessera: {row['file']}: {row['error']}", file=sys.stderr)
        yield row


if __name__ == "__main__":
    sys.exit(main())
