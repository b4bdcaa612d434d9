"""List the bundled model and your own, or those in a folder of models."""

from __future__ import annotations

import argparse

from rich import box
from rich.console import Console
from rich.table import Table

from tessera.app.errors import StartupError
from tessera.app.served.selection import cache_folder
from tessera.app.settings import Settings
from tessera.models.cache import library_folder
from tessera.models.registry import list_models


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the table."""
    if settings.models is not None and not settings.models.is_dir():
        raise StartupError(f"The models folder {settings.models} does not exist.")
    table = Table("model", "labels", "variants", "built", "ascend", "folder", box=box.SIMPLE_HEAD)
    found = list_models(settings.models, cache=settings.cache_dir)
    library = library_folder(cache_folder(settings))
    if settings.models is None and library.is_dir():
        found += list_models(library, cache=settings.cache_dir)
    for summary in found:
        state = summary.problem or ("yes" if summary.built else "at first start")
        cells = summary.name, str(summary.labels), ", ".join(summary.variants), state, summary.soc, str(summary.folder)
        table.add_row(*cells)
    # A table for a pipe or a file is as wide as it needs, so that no path is cut.
    console = Console()
    (console if console.is_terminal else Console(width=400)).print(table)
    return 0
