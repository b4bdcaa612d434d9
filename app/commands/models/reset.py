"""Undo every quantisation of a model that was made on this machine: back to what its folder came with."""

from __future__ import annotations

import argparse

from tessera.app.served.selection import cache_folder, read_model_folder
from tessera.app.settings import Settings
from tessera.models.calibrations import CalibrationFiles


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Undo it, and say what was removed and what is served now."""
    package = read_model_folder(settings.model_copy(update={"model_path": arguments.name}))
    files = CalibrationFiles.of(package, cache_folder(settings))
    for path in files.reset():
        print(f"{'put back' if path == files.shipped else 'removed'}: {path}")
    left = "from the calibration in its folder" if files.shipped.is_file() else "without a calibration, in fp32"
    print(f"From its next start or reload on, the service builds the optimised variant of {package.name} {left}.")
    return 0
