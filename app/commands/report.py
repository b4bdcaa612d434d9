"""Measure everything of a model on this machine, and write it as one HTML file to pass on."""

from __future__ import annotations

import argparse
import shlex
import sys

from tessera.app.commands.progress import ProgressDisplay
from tessera.app.figures.documents import write_document
from tessera.app.figures.images import find_images, load_images
from tessera.app.figures.report import make_report, report_page
from tessera.app.figures.speed import BATCHES, ROTATION
from tessera.app.served.loading import open_configured_model
from tessera.app.served.selection import read_model_folder
from tessera.app.settings import Settings
from tessera.engine.quantize.files import check_target, write_whole


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Write the report."""
    for target in filter(None, (arguments.output, arguments.json)):
        check_target(target)
    images = find_images(arguments.images or arguments.photos)
    with ProgressDisplay() as display:
        package = read_model_folder(settings, display)
        pool = load_images(images, max(BATCHES) * ROTATION, package.preprocessing)
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
