"""Measure everything of a model on this machine, and write it as one HTML file to pass on."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from tessera.app.commands.flags import RUN_SETTINGS, add_settings_flags, settings_from
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.figures.documents import write_document
from tessera.app.figures.images import load_images
from tessera.app.figures.report import make_report, report_page
from tessera.app.figures.speed import BATCHES, ROTATION
from tessera.app.served.loading import open_configured_model
from tessera.app.served.selection import find_model
from tessera.engine.quantize.files import check_target, write_whole
from tessera.models.package import read_package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, default=Path("report.html"), help="(default report.html)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure there")
    parser.add_argument(
        "--photos", metavar="FOLDER", type=Path, help="labelled photos to count accuracy on; see models evaluate"
    )
    parser.add_argument(
        "--images", metavar="FOLDER", type=Path, help="what to time with (default: those, or generated)"
    )
    parser.add_argument(
        "--rounds", type=int, choices=range(6, 1001), default=15, metavar="N", help="of every timing (default 15)"
    )
    add_settings_flags(parser, RUN_SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Write the report."""
    settings = settings_from(arguments)
    for target in filter(None, (arguments.output, arguments.json)):
        check_target(target)
    package = read_package(find_model(settings))
    pool = load_images(arguments.images or arguments.photos, max(BATCHES) * ROTATION, package.preprocessing)
    with ProgressDisplay() as display:
        document = make_report(
            open_configured_model(settings, display),
            package,
            settings,
            pool,
            rounds=arguments.rounds,
            photos=arguments.photos,
            command=shlex.join(["tessera", *sys.argv[1:]]),
            progress=display,
        )
    write_whole(arguments.output, report_page(document).encode())
    if arguments.json is not None:
        write_document(arguments.json, document)
    print(f"The report is in {arguments.output}.")
    return 0
