"""Models that are not wanted any more, with all that was made of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tessera.engine.errors import ModelError
from tessera.engine.quantize.files import PARTIAL_SUFFIX
from tessera.models.cache import build_folders
from tessera.models.calibrations import CalibrationFiles
from tessera.models.package import Package


def remove_model(package: Package, cache: Path) -> list[Path]:
    """Remove a model's folder, and from the cache its calibrations and the graphs of models of its name.

    Graphs of another model of that name are built again at its next start.

    Args:
        package: the model.
        cache: the cache folder.

    Returns:
        What was removed.

    Raises:
        ModelError: something cannot be removed; the model's folder is whole or gone.
    """
    files = CalibrationFiles.of(package, cache)
    removed = [package.folder]
    try:
        # Under a name with a dot in front it is no model any more, even if its removal is cut short.
        leaving = package.folder.with_name(f".{package.folder.name}.{os.getpid()}{PARTIAL_SUFFIX}")
        package.folder.rename(leaving)
        shutil.rmtree(leaving)
        for path in (files.own, files.refused):
            if path.is_file():
                path.unlink()
                removed.append(path)
        for folder in build_folders(cache, package.name):
            shutil.rmtree(folder)
            removed.append(folder)
    except OSError as error:
        raise ModelError(f"Cannot remove {error.filename}: {error.strerror or error}.") from error
    return removed
