"""What zero blocks of weights save and cost: the bundled model pruned, timed in turn on one thread, its accuracy."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from tessera import engine
from tessera.engine.pruning import prune
from tessera.engine.quantize import Calibration, quantised_model
from tessera.models.package import read_package
from tessera.models.photos import find_photos, read_photos
from tessera.models.registry import BUNDLED
from tessera.models.source import float_model

SHARES = (0.3, 0.5, 0.7)


def pruned_files(folder: Path) -> dict[str, Path]:
    """The bundled model in int8, dense and pruned, by what was done to it."""
    package = read_package(BUNDLED)
    network = float_model(package)
    calibration = Calibration.load(package.calibration)
    wanted = [("dense", 0.0, True)]
    wanted += [(f"{share:.0%} of every layer", share, True) for share in SHARES]
    wanted += [(f"{share:.0%} across layers", share, False) for share in SHARES]
    files: dict[str, Path] = {}
    for name, share, evenly in wanted:
        files[name] = folder / f"{len(files)}.onnx"
        onnx.save(quantised_model(prune(network, share, evenly=evenly), calibration), files[name])
    return files


def times(sessions: dict[str, engine.Session], batch: NDArray[np.float32], rounds: int) -> NDArray[np.float64]:
    """CPU milliseconds of this process, [rounds, sessions]; CPU time bears other work on the machine better."""
    found = np.empty((rounds, len(sessions)))
    for row in found:
        for column, session in enumerate(sessions.values()):
            start = time.process_time()
            session.run(batch)
            row[column] = 1e3 * (time.process_time() - start)
    return found


def accuracy(session: engine.Session, photos: NDArray[np.float32], labels: NDArray[np.intp]) -> float:
    """Percent of the photos whose best class is theirs."""
    best = [session.run(photos[i : i + 16]).argmax(axis=1) for i in range(0, len(photos), 16)]
    return 100 * float(np.mean(np.concatenate(best) == labels))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "photos", type=Path, help="folder of Imagenette's classes, each a folder named by its WordNet id"
    )
    parser.add_argument("--limit", type=int, default=320, help="photos to look at")
    parser.add_argument("--rounds", type=int, default=40, help="runs of one image; of 16 images a quarter as many")
    arguments = parser.parse_args()
    package = read_package(BUNDLED)
    wnids = (package.folder / "wnids.txt").read_text(encoding="utf-8").split()
    paths = find_photos(arguments.photos, arguments.limit)
    labels = np.array([wnids.index(path.parent.name) for path in paths])
    photos = np.concatenate(list(read_photos(paths, package.preprocessing)))
    with tempfile.TemporaryDirectory() as folder:
        sessions = {name: engine.load(path, threads=1) for name, path in pruned_files(Path(folder)).items()}
    single = times(sessions, photos[:1], arguments.rounds).min(axis=0)
    many = times(sessions, photos[:16], max(1, arguments.rounds // 4)).min(axis=0)
    print("| blocks that are zeros | 1 image, ms | | 16 images, ms | | top-1 |")
    print("|---|---:|---:|---:|---:|---:|")
    for index, (name, session) in enumerate(sessions.items()):
        fast = f"{single[index]:.2f} | {single[0] / single[index]:.2f}x"
        wide = f"{many[index]:.1f} | {many[0] / many[index]:.2f}x"
        print(f"| {name} | {fast} | {wide} | {accuracy(session, photos, labels):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
