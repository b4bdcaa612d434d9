"""Download an official model, checked against its pinned SHA-256."""

from __future__ import annotations

import argparse

from tessera.app.commands.models.places import destination, tell
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.served.selection import cache_folder
from tessera.app.settings import Settings
from tessera.models.importing.catalogue import CATALOGUE, find_entry
from tessera.models.importing.importer import ImportOptions
from tessera.models.importing.pull import pull_model


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Pull, and print where the model is."""
    entry = find_entry(arguments.name, arguments.catalogue or CATALOGUE)
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
