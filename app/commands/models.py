"""List the models that can be served, or build one ahead of its first start."""

from __future__ import annotations

import argparse

from rich import box
from rich.console import Console
from rich.table import Table

from app.commands.flags import MODEL_SETTINGS, add_settings_flags, settings_from
from app.commands.progress import ProgressDisplay
from app.errors import StartupError
from app.loading import open_configured_model
from app.settings import Settings
from models.registry import list_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's actions and arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the bundled model, or those in a folder of models")
    add_settings_flags(listing, ("models", "cache_dir"))
    build = actions.add_parser("build", help="build a model's variants into the cache")
    add_settings_flags(build, MODEL_SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """List or build; returns 0."""
    settings = settings_from(arguments)
    return _list(settings) if arguments.action == "list" else _build(settings)


def _list(settings: Settings) -> int:
    if settings.models is not None and not settings.models.is_dir():
        raise StartupError(f"The models folder {settings.models} does not exist.")
    table = Table("model", "labels", "variants", "built", "folder", box=box.SIMPLE_HEAD)
    for summary in list_models(settings.models, cache=settings.cache_dir):
        state = summary.problem or ("yes" if summary.built else "at first start")
        table.add_row(summary.name, str(summary.labels), ", ".join(summary.variants), state, str(summary.folder))
    # A table for a pipe or a file is as wide as it needs, so that no path is cut.
    console = Console()
    (console if console.is_terminal else Console(width=400)).print(table)
    return 0


def _build(settings: Settings) -> int:
    with ProgressDisplay() as display:
        model = open_configured_model(settings, display)
    for name, variant in sorted(model.variants.items()):
        print(f"{model.name} {name} ({variant.precision}): {variant.path}")
    return 0
