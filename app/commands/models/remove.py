"""Remove a model of the library, or what the cache keeps of a model file, with all that was built of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from tessera.app.errors import StartupError
from tessera.app.served.selection import cache_folder, locate
from tessera.app.settings import Settings
from tessera.models.cache import library_folder
from tessera.models.formats.foreign import ForeignModel
from tessera.models.importing.adoption import adopted_folder
from tessera.models.package import is_package, read_package
from tessera.models.registry import BUNDLED
from tessera.models.removal import remove_model


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Remove it, and say what is gone."""
    settings = settings.model_copy(update={"model_path": arguments.name})
    for path in remove_model(read_package(_folder(settings)), cache_folder(settings)):
        print(f"removed: {path}")
    print("A service that runs it goes on until it ends or loads a variant anew.")
    return 0


def _folder(settings: Settings) -> Path:
    """The folder to remove.

    Raises:
        StartupError: It was not put where it is by `tessera models`, so that it is not ours to remove.
    """
    found, cache = locate(settings), cache_folder(settings)
    if isinstance(found, ForeignModel):
        folder = adopted_folder(found, cache)
        if not is_package(folder):
            raise StartupError(f"Nothing of {found.file} is kept; the file itself is yours to remove.")
        return folder
    found = found.resolve()
    if found == BUNDLED:
        raise StartupError(f"{BUNDLED.name} comes with Tessera and stays.")
    places = [library_folder(cache), *([settings.models] if settings.models is not None else [])]
    if found.parent not in [place.resolve() for place in places]:
        raise StartupError(
            f"{found} is in no folder of models that Tessera fills, so it is yours to remove: it lies neither in "
            f"{library_folder(cache)} nor in the folder that --models names."
        )
    return found
