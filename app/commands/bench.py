"""Compare the variants' speed: interleaved runs in one process, medians and means, ratios."""

from __future__ import annotations

import argparse
from math import isnan
from statistics import fmean, median

from rich import box
from rich.console import Console
from rich.table import Table

from tessera import engine
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.figures.documents import BenchDocument, describe, write_document
from tessera.app.figures.images import find_images, load_images
from tessera.app.figures.speed import BATCHES, ROTATION, Row, describe_row, measure, speed_up
from tessera.app.served.loading import open_configured_model, open_session
from tessera.app.served.selection import read_model_folder
from tessera.app.settings import Settings
from tessera.engine.backends import BACKENDS
from tessera.engine.quantize.files import check_target
from tessera.wording import counted

_WIDTH = 160
# As people call them; the rest of a run is the host's own: preparing and dividing the batch.
_STAGES = {"h2d": "H2D ms", "execution": "execution ms", "d2h": "D2H ms"}


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the table."""
    if arguments.json is not None:
        check_target(arguments.json)
    # Before anything is built: a wrong folder is told at once.
    photos = find_images(arguments.images)
    with ProgressDisplay() as display:
        preprocessing = read_model_folder(settings, display).preprocessing
        pool = load_images(photos, max(BATCHES) * ROTATION, preprocessing)
        model = open_configured_model(settings, display)
        sessions = {name: open_session(variant, settings) for name, variant in model.variants.items()}
        rows = []
        for batch in BATCHES:
            rows += measure(sessions, pool, batch, arguments.rounds, display)
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
                measurements=[describe_row(row, rows) for row in rows],
            ),
        )
    for session in sessions.values():
        session.close()
    return 0


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
            f"{speed_up(row, rows).value:.2f}x",
            f"{row.agreement:.1%}",
        )
    console = Console(width=_WIDTH)
    console.print(f"{title}\n", highlight=False)
    console.print(table)
