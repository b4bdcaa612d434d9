"""Compare the variants' speed: interleaved runs in one process, medians and means, ratios."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import fmean, median

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table

from tessera import engine
from tessera.app.commands.flags import RUN_SETTINGS, add_settings_flags, settings_from
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.figures.documents import BenchDocument, MeasurementBody, describe, write_document
from tessera.app.figures.images import load_images
from tessera.app.served.loading import open_configured_model, open_session
from tessera.app.served.selection import find_model
from tessera.engine.backends import BACKENDS
from tessera.engine.quantize.files import check_target
from tessera.models.package import read_package
from tessera.wording import counted

_BATCHES = (1, 16)
# More different images than a batch holds, so that no run sees what the run before it left in the caches.
_ROTATION = 3
_WIDTH = 160
# As people call them; the rest of a run is the host's own: preparing and dividing the batch.
_STAGES = {"h2d": "H2D ms", "execution": "execution ms", "d2h": "D2H ms"}


@dataclass(frozen=True)
class Row:
    """One variant at one batch size: seconds of every round, and how its answers compare with the first variant's."""

    variant: str
    batch: int
    seconds: list[float]
    stages: dict[str, list[float]]
    utilisation: float
    agreement: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("--rounds", type=_at_least_one, default=15, help="timed rounds per batch size (default 15)")
    parser.add_argument("--images", type=Path, help="folder of photos to run (default: generated images)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every time measured there")
    add_settings_flags(parser, RUN_SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    settings = settings_from(arguments)
    if arguments.json is not None:
        check_target(arguments.json)
    # Before anything is built: a wrong folder is told at once.
    pool = load_images(arguments.images, max(_BATCHES) * _ROTATION, read_package(find_model(settings)).preprocessing)
    with ProgressDisplay() as display:
        model = open_configured_model(settings, display)
        sessions = {name: open_session(variant, settings) for name, variant in model.variants.items()}
        rows = []
        for batch in _BATCHES:
            rows += _measure(sessions, pool, batch, arguments.rounds, display)
    infos = {name: session.describe() for name, session in sessions.items()}
    machine = BACKENDS[next(iter(infos.values())).backend].machine(next(iter(infos.values())))
    _print(f"{model.name} on {machine}", infos, rows, arguments.rounds)
    if arguments.json is not None:
        write_document(
            arguments.json,
            BenchDocument(
                model=model.name,
                machine=machine,
                variants={name: describe(session) for name, session in sessions.items()},
                rounds=arguments.rounds,
                measurements=[_body(row, rows) for row in rows],
            ),
        )
    for session in sessions.values():
        session.close()
    return 0


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _measure(
    sessions: dict[str, engine.Session],
    pool: npt.NDArray[np.uint8],
    batch: int,
    rounds: int,
    display: ProgressDisplay,
) -> list[Row]:
    """Every round runs every variant once on the same images; rounds take different images."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    stages: dict[str, dict[str, list[float]]] = {name: {} for name in sessions}
    labels: dict[str, list[npt.NDArray[np.intp]]] = {name: [] for name in sessions}
    for number in range(-1, rounds):  # round -1 warms up
        images = np.roll(pool, -batch * (number + 1), axis=0)[:batch].copy()
        for name, session in sessions.items():
            started = time.perf_counter()
            logits, parts = session.run_in_stages(images)
            elapsed = time.perf_counter() - started
            if number >= 0:
                seconds[name].append(elapsed)
                for stage, part in parts.items():
                    stages[name].setdefault(stage, []).append(part)
                labels[name].append(logits.argmax(axis=1))
        display(f"batch {batch}", (number + 1) / rounds)
    reference = np.concatenate(next(iter(labels.values())))
    rows = []
    for name, session in sessions.items():
        info = session.describe()
        peak = session.peak()
        utilisation = info.macs * batch / median(seconds[name]) / peak if peak else float("nan")
        agreement = float((np.concatenate(labels[name]) == reference).mean())
        rows.append(Row(name, batch, seconds[name], stages[name], utilisation, agreement))
    return rows


def _speed_up(row: Row, rows: list[Row]) -> float:
    """Against the first variant at the same batch size, within each round."""
    first = next(other for other in rows if other.batch == row.batch)
    return median(a / b for a, b in zip(first.seconds, row.seconds, strict=True))


def _body(row: Row, rows: list[Row]) -> MeasurementBody:
    return MeasurementBody(
        variant=row.variant,
        batch=row.batch,
        seconds=row.seconds,
        milliseconds=median(row.seconds) * 1e3,
        mean_milliseconds=fmean(row.seconds) * 1e3,
        stages=row.stages,
        images_per_second=row.batch / median(row.seconds),
        peak_share=None if isnan(row.utilisation) else row.utilisation,
        speed_up=_speed_up(row, rows),
        agreement=row.agreement,
    )


def _print(where: str, infos: dict[str, engine.SessionInfo], rows: list[Row], rounds: int) -> None:
    title = f"{where}, median and mean of {counted(rounds, 'interleaved round')}"
    stages = [stage for stage in _STAGES if any(stage in row.stages for row in rows)]
    table = Table(box=box.MARKDOWN)  # so that it can be pasted
    for heading in ("variant", "engine", "precision", "batch"):
        table.add_column(heading)
    timed = ("ms", "mean ms", *(_STAGES[stage] for stage in stages))
    for heading in (*timed, "images/s", "of peak", "speed-up", "same label"):
        table.add_column(heading, justify="right")
    for row in rows:
        info = infos[row.variant]
        table.add_row(
            row.variant,
            info.backend,
            info.precision,
            str(row.batch),
            f"{median(row.seconds) * 1e3:.2f}",
            f"{fmean(row.seconds) * 1e3:.2f}",
            *(f"{median(row.stages[stage]) * 1e3:.2f}" if stage in row.stages else "" for stage in stages),
            f"{row.batch / median(row.seconds):.1f}",
            "" if isnan(row.utilisation) else f"{row.utilisation:.0%}",
            f"{_speed_up(row, rows):.2f}x",
            f"{row.agreement:.1%}",
        )
    console = Console(width=_WIDTH)
    console.print(f"{title}\n", highlight=False)
    console.print(table)
