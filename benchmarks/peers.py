"""Ours against ONNX Runtime and OpenVINO, on the same photos in one interleaved run.

    make peers                                                  # everything the README and docs/performance.md quote
    .venv/bin/python -m benchmarks.peers --batch 16 --threads 1 --only ours-int8,openvino-int8

Every round runs every engine once on the same photos, each round on other photos; the figure is the median over rounds
of the ratio within a round, so that a slow moment of a shared machine hits both sides. An engine whose labels differ
from ONNX Runtime fp32 on more than a tenth of the photos is reported as wrong, whatever its speed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.peer_models import PeerModels, find_data, versions
from tessera import engine
from tessera.app.imaging.decoder import ImageDecoder
from tessera.engine.machine import cpu_name
from tessera.models.preprocessing.transform import Preprocessing

Run = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]

POOL = 64
LEAST_AGREEMENT = 0.9

# (what, against what): the ratios that the issues ask for.
COMPARISONS = (
    ("ours-int8", "openvino-int8"),
    ("ours-int8", "onnxruntime-int8"),
    ("ours-int8", "onnxruntime-fp32"),
    ("ours-fp32", "onnxruntime-fp32"),
    ("ours-fp32", "openvino-fp32"),
    ("ours-bf16", "openvino-bf16"),
)


@dataclass
class Result:
    """One engine at one batch size and number of threads."""

    engine: str
    batch: int
    threads: int
    milliseconds: list[float]
    peak_share: float
    agreement: float

    @property
    def median(self) -> float:
        """Milliseconds of the middle round."""
        return median(self.milliseconds)


def main() -> int:
    arguments = _arguments()
    data = find_data(arguments.data)
    models = PeerModels(data, arguments.cache, arguments.ours)
    pool = _photos(data / "imagenet-sample", models)
    results: list[Result] = []
    for threads in arguments.threads:
        for batch in arguments.batch:
            runs = models.open_all(batch, threads, arguments.only)
            results += _measure(runs, pool, batch, threads, arguments.rounds)
            models.close()
    console = Console(width=140)
    console.print(f"{cpu_name()}; {versions()}; median of {arguments.rounds} interleaved rounds\n", highlight=False)
    console.print(_engine_table(results))
    console.print(_ratio_table(results))
    if arguments.json:
        document = {"cpu": cpu_name(), "versions": versions(), "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    wrong = [result for result in results if result.agreement < LEAST_AGREEMENT]
    for result in wrong:
        print(
            f"{result.engine} agrees with fp32 on only {result.agreement:.0%}: its speed does not count.",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=_numbers, default=[1, 16], help="batch sizes (default 1,16)")
    parser.add_argument("--threads", type=_numbers, default=[1, 2], help="numbers of threads (default 1,2)")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default 15)")
    parser.add_argument("--only", type=lambda text: text.split(","), help="engines to run (default: all)")
    parser.add_argument("--data", type=Path, help="folder with resnet50-imagenet and imagenet-sample")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/results/models"), help="built models")
    parser.add_argument(
        "--ours", type=Path, help="our int8 model as an ONNX file (default: quantised from the peers' photos)"
    )
    parser.add_argument("--json", type=Path, help="also write every time measured here")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _photos(folder: Path, models: PeerModels) -> npt.NDArray[np.float32]:
    files = [file for file in sorted(folder.glob("*.JPEG")) if file not in set(models.calibration_photos())]
    decoder = ImageDecoder(Preprocessing(), max_pixels=64 * 1024 * 1024)
    pixels = np.empty((POOL, *decoder.shape), np.uint8)
    for row in range(POOL):
        decoder.decode(files[row * len(files) // POOL].read_bytes(), pixels[row])
    return models.normalise(pixels)


def _measure(
    runs: dict[str, tuple[Run, str]], pool: npt.NDArray[np.float32], batch: int, threads: int, rounds: int
) -> list[Result]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    labels: dict[str, list[int]] = {name: [] for name in runs}
    with Progress(transient=True) as progress:
        task = progress.add_task(f"batch {batch}, {threads} threads", total=rounds)
        for number in range(-1, rounds):  # round -1 warms up
            images = np.ascontiguousarray(np.roll(pool, -batch * (number + 1), axis=0)[:batch])
            for name, (run, _) in runs.items():
                started = time.perf_counter()
                logits = run(images)
                elapsed = time.perf_counter() - started
                if number >= 0:
                    times[name].append(elapsed * 1e3)
                    labels[name] += logits.argmax(axis=1).tolist()
            progress.advance(task)
    reference = labels.get("onnxruntime-fp32", next(iter(labels.values())))
    peaks = {precision: engine.measure_peak(precision, threads) for precision in {p for _, p in runs.values()}}
    macs = 4_089_184_256  # of ResNet-50 v1.5 with 1000 classes
    return [
        Result(
            name,
            batch,
            threads,
            times[name],
            macs * batch / (median(times[name]) / 1e3) / peaks[precision],
            float(np.mean(np.array(labels[name]) == np.array(reference))),
        )
        for name, (_, precision) in runs.items()
    ]


def _engine_table(results: list[Result]) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("engine")
    for heading in ("batch", "threads", "ms", "images/s", "of peak", "same label as fp32"):
        table.add_column(heading, justify="right")
    for r in results:
        rate = r.batch / r.median * 1e3
        table.add_row(
            r.engine,
            str(r.batch),
            str(r.threads),
            f"{r.median:.2f}",
            f"{rate:.1f}",
            f"{r.peak_share:.0%}",
            f"{r.agreement:.1%}",
        )
    return table


def _ratio_table(results: list[Result]) -> Table:
    """Speed-up: how many times faster the left engine is, median over rounds."""
    found = {(r.engine, r.batch, r.threads): r for r in results}
    settings = sorted({(r.threads, r.batch) for r in results})
    table = Table(box=box.MARKDOWN)
    table.add_column("speed-up")
    for threads, batch in settings:
        table.add_column(f"batch {batch}, {threads} thr.", justify="right")
    for ours, theirs in COMPARISONS:
        cells = []
        for threads, batch in settings:
            a, b = found.get((ours, batch, threads)), found.get((theirs, batch, threads))
            ratio = "" if a is None or b is None else f"{_paired_ratio(a, b):.2f}x"
            cells.append(ratio)
        if any(cells):
            table.add_row(f"{ours} vs {theirs}", *cells)
    for name in dict.fromkeys(r.engine for r in results if r.engine.startswith("ours")):
        cells = []
        for threads, batch in settings:
            one, many = found.get((name, batch, 1)), found.get((name, batch, threads))
            cells.append(f"{one.median / many.median:.2f}x" if one and many and threads > 1 else "")
        if any(cells):
            table.add_row(f"{name}: threads vs 1 thread", *cells)
    return table


def _paired_ratio(a: Result, b: Result) -> float:
    return median(y / x for x, y in zip(a.milliseconds, b.milliseconds, strict=True))


if __name__ == "__main__":
    sys.exit(main())
