"""Where models are kept, and what is said of one that has just been put there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tessera.app.served.selection import cache_folder
from tessera.app.settings import Settings
from tessera.models.cache import library_folder
from tessera.models.package import Package
from tessera.wording import counted


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
