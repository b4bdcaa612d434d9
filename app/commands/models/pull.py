"""Download an official model, checked against its pinned SHA-256."""

from __future__ import annotations

import argparse
from pathlib import Path

from tessera.app.commands.models.places import add_import_flags, destination, tell
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.served.selection import cache_folder
from tessera.app.settings import Settings
from tessera.models.catalogue import CATALOGUE, find_entry, read_catalogue
from tessera.models.importer import ImportOptions
from tessera.models.pull import pull_model

HELP = "download an official model, checked against its pinned SHA-256"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the action's arguments."""
    names = "\n".join(f"  {name:<24} {entry.description}" for name, entry in read_catalogue().items())
    parser.epilog = f"models:\n{names}"
    parser.add_argument("name", metavar="NAME", help="one of the models below")
    parser.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        default=[],
        help="address of the same file to try first; with a slash at its end, of a folder that holds it; repeatable",
    )
    parser.add_argument(
        "--catalogue", metavar="FILE", type=Path, default=CATALOGUE, help="a catalogue of your own in place of this one"
    )
    add_import_flags(parser)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Pull, and print where the model is."""
    entry = find_entry(arguments.name, arguments.catalogue)
    with ProgressDisplay() as display:
        package = pull_model(
            entry,
            destination(arguments, settings),
            cache_folder(settings),
            options=ImportOptions(labels=arguments.labels),
            mirrors=arguments.mirror,
            progress=display,
        )
    tell(package)
    return 0
