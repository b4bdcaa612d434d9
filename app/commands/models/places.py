"""Where models are kept, and what is said of one that has just been put there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tessera.app.commands.flags import add_settings_flags
from tessera.app.served.selection import cache_folder
from tessera.app.settings import Settings
from tessera.models.cache import library_folder
from tessera.models.package import LARGEST_IMAGE, Package
from tessera.wording import counted

# Settings that decide where models are kept.
PLACES = ("models", "cache_dir")


def pixels(text: str) -> int:
    """A flag's length of an image's side."""
    number = int(text)
    if not 1 <= number <= LARGEST_IMAGE:
        raise argparse.ArgumentTypeError(f"must be from 1 to {LARGEST_IMAGE}")
    return number


def add_import_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every action that makes a model folder."""
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help='class names, one per line (default: "class 0", ...)'
    )
    parser.add_argument("--into", metavar="FOLDER", type=Path, help="folder of models to put it in")
    add_settings_flags(parser, PLACES)


def destination(arguments: argparse.Namespace, settings: Settings) -> Path:
    """The folder of models that a new one goes into."""
    into: Path | None = arguments.into
    return into or settings.models or library_folder(cache_folder(settings))


def tell(package: Package) -> None:
    """Print where a new model lies, and what to do about classes without names."""
    print(f"{package.name}: {package.folder}")
    print(f"Serve it with: tessera serve --model-path {package.folder}")
    if package.labels[0] == "class 0":
        print(
            f"tessera: the file does not name its {counted(len(package.labels), 'class', 'classes')}; they are called "
            f"'class 0' and so on. Write their names into {package.folder / 'labels.txt'}, one per line.",
            file=sys.stderr,
        )
