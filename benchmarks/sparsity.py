"""What zero blocks of weights save and cost: times in turn on one thread, accuracy, agreement with the dense one."""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.peer_models import find_data
from tessera import engine
from tessera.engine.pruning import Pruner, prune
from tessera.engine.quantize import Calibration, quantised_model
from tessera.engine.quantize.measures import agreement
from tessera.engine.quantize.network.sessions import file_in_memory
from tessera.models.fine_tuning import FineTuning, fine_tune
from tessera.models.package import read_package
from tessera.models.preprocessing.photos import find_photos, read_photos
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.registry import BUNDLED
from tessera.models.source import float_model

SHARES = (0.1, 0.3, 0.5, 0.7)
SETTLED = 64
Images = NDArray[np.float32]


@contextmanager
def opened(model: onnx.ModelProto) -> Iterator[engine.Session]:
    """A session of one thread."""
    with file_in_memory(model.SerializeToString()) as path, engine.load(path, threads=1) as session:
        yield session


def answers(session: engine.Session, photos: Images) -> Images:
    """Logits of all photos."""
    return np.concatenate([session.run(photos[start : start + 16]) for start in range(0, len(photos), 16)])


def pruned_models(network: onnx.ModelProto, settling: Images) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The network pruned in every way, by what was done to it."""
    yield "dense", prune(network, 0.0)
    pruner = Pruner(network, settling, progress=told)
    for share in SHARES:
        yield f"{share:.0%} of every layer, by magnitude", prune(network, share, evenly=True)
        yield f"{share:.0%} across layers, by magnitude", prune(network, share)
        yield f"{share:.0%}, by photos", pruner.pruned(pruner.zeros(share))


def told(stage: str, fraction: float) -> None:
    """Show that something is going on."""
    print(f"\r{stage} {fraction:.0%}".ljust(78), end="", file=sys.stderr, flush=True)


def times(sessions: dict[str, engine.Session], batch: Images, rounds: int) -> NDArray[np.float64]:
    """CPU milliseconds of this process, [rounds, sessions]; CPU time bears other work on the machine better."""
    found = np.empty((rounds, len(sessions)))
    for row in found:
        for column, session in enumerate(sessions.values()):
            start = time.process_time()
            session.run(batch)
            row[column] = 1e3 * (time.process_time() - start)
    return found


def sample(folder: Path, count: int, preprocessing: Preprocessing, seed: int = 0) -> tuple[list[Path], Images]:
    """Photos of a folder in an order of chance, always the same."""
    paths = find_photos(folder, count)
    paths = [paths[index] for index in np.random.Generator(np.random.PCG64(seed)).permutation(len(paths))]
    return paths, np.concatenate(list(read_photos(paths, preprocessing)))


def bundled(data: Path, arguments: argparse.Namespace) -> None:
    """The bundled model in int8, pruned in its float form: times, and top-1 and top-5 on Imagenette's photos."""
    package = read_package(BUNDLED)
    network, calibration = float_model(package), Calibration.load(package.calibration)
    _, settling = sample(data / "imagenette/calibration", SETTLED, package.preprocessing)
    models = dict(pruned_models(network, settling))
    if arguments.epochs:
        how = FineTuning(find_photos(data / "imagenette/calibration"), arguments.epochs)
        for share in SHARES[1:]:
            start = models[f"{share:.0%}, by photos"]
            tuned = fine_tune(start, network, how, package.preprocessing, told)
            models[f"{share:.0%}, by photos, {arguments.epochs} epochs"] = tuned
    wnids = (package.folder / "wnids.txt").read_text(encoding="utf-8").split()
    paths = find_photos(data / "imagenette/val", None if arguments.all else arguments.limit)
    labels = np.array([wnids.index(path.parent.name) for path in paths])
    rows = []
    for name, model in models.items():
        told(f"top-1 and top-5, {name}", 0.0)
        with opened(quantised_model(model, calibration)) as session:
            best = []
            for batch in read_photos(paths, package.preprocessing, 16):
                best.append(np.argsort(-session.run(batch), axis=1)[:, :5])
            hits = np.concatenate(best) == labels[:, None]
        rows.append(f"{100 * hits[:, 0].mean():.2f} % | {100 * hits.any(axis=1).mean():.2f} %")
    heading, rule = "top-1 | top-5", "---:|---:"
    if arguments.rounds:
        heading, rule = f"1 image, ms | | 16 images, ms | | {heading}", f"---:|---:|---:|---:|{rule}"
        rows = [
            f"{fast} | {row}"
            for fast, row in zip(paired(models, calibration, settling, arguments.rounds), rows, strict=True)
        ]
    print(f"\n| blocks that are zeros, int8, {len(paths):,} photos | {heading} |\n|---|{rule}|")
    for name, row in zip(models, rows, strict=True):
        print(f"| {name} | {row} |", flush=True)


def paired(models: dict[str, onnx.ModelProto], calibration: Calibration, photos: Images, rounds: int) -> list[str]:
    """Times and ratios to the dense model, of 1 and of 16 images, as cells of a table."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for index, (name, model) in enumerate(models.items()):
            onnx.save(quantised_model(model, calibration), Path(folder, f"{index}.onnx"))
            sessions[name] = engine.load(Path(folder, f"{index}.onnx"), threads=1)
    one = times(sessions, photos[:1], rounds).min(axis=0)
    many = times(sessions, photos[:16], max(1, rounds // 4)).min(axis=0)
    return [
        f"{single:.2f} | {one[0] / single:.2f}x | {batch:.1f} | {many[0] / batch:.2f}x"
        for single, batch in zip(one, many, strict=True)
    ]


def imagenet(data: Path, arguments: argparse.Namespace) -> None:
    """ResNet-50 with ImageNet's weights in fp32: agreement with the dense one on photos that nothing was fitted to."""
    network = onnx.load_from_string(gzip.decompress((data / "resnet50-imagenet/resnet50.onnx.gz").read_bytes()))
    paths, photos = sample(data / "imagenet-sample", 500, Preprocessing())
    labels = np.array([int(path.name.partition("_")[0]) for path in paths])[SETTLED:]
    settling, judging = photos[:SETTLED], photos[SETTLED:]
    if not arguments.all:
        judging, labels = judging[: arguments.limit], labels[: arguments.limit]
    wanted = None
    print(f"\n| blocks that are zeros, fp32, {len(judging):,} photos | agreement with dense | top-1 | top-5 |")
    print("|---|---:|---:|---:|")
    for name, model in pruned_models(network, settling):
        told(f"agreement, {name}", 0.0)
        with opened(model) as session:
            got = answers(session, judging)
        wanted = got if wanted is None else wanted
        hits = np.argsort(-got, axis=1)[:, :5] == labels[:, None]
        cells = (agreement(wanted, got), hits[:, 0].mean(), hits.any(axis=1).mean())
        print(f"\r| {name} | {' | '.join(f'{100 * cell:.1f} %' for cell in cells)} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "data", type=Path, nargs="?", help="folder of the real weights and photos (default: shared/data)"
    )
    parser.add_argument("--limit", type=int, default=320, help="photos to look at in each table")
    parser.add_argument("--all", action="store_true", help="look at all: 3,925 of Imagenette, 436 of ImageNet")
    parser.add_argument(
        "--rounds", type=int, default=40, help="runs of one image, of 16 a quarter as many; 0: no times"
    )
    parser.add_argument("--epochs", type=int, default=0, help="also train the pruned models so long; needs torch")
    parser.add_argument("--only", choices=("bundled", "imagenet"), help="one of the tables")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    if arguments.only != "imagenet":
        bundled(data, arguments)
    if arguments.only != "bundled":
        imagenet(data, arguments)


if __name__ == "__main__":
    main()
