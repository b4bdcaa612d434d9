"""Show all that is known of a model: where it lies, how it sees photos, what its variants are made from."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from tessera.app.commands.progress import ProgressDisplay
from tessera.app.served.selection import cache_folder, read_model_folder, shortest_name
from tessera.app.settings import Settings
from tessera.models.build import is_built
from tessera.models.calibrations import CalibrationFiles
from tessera.models.formats.weights import file_sha256
from tessera.models.package import Package
from tessera.models.preprocessing.image_size import size_text
from tessera.wording import counted

_SHOWN = 5


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print a line for each thing."""
    settings = settings.model_copy(update={"model_path": arguments.name})
    with ProgressDisplay() as display:
        package = read_model_folder(settings, display)
    lines = {
        "model": package.name,
        "description": package.description,
        "folder": str(package.folder),
        "weights": f"{package.source.name}, {package.source.stat().st_size / 1e6:,.1f} MB",
        "classes": _classes(package),
        "photos": _photos(package),
        "also at": ", ".join(size_text(other.size) for other in package.others),
        "optimised": _optimised(package, cache_folder(settings)),
        "built": "yes" if is_built(package, cache_folder(settings)) else "at first start",
        "ascend": package.ascend.soc if package.ascend is not None else "",
        "serve it": shlex.join(["tessera", "serve", shortest_name(package.folder, settings), *_asked(settings)]),
    }
    for title, text in lines.items():
        if text:
            print(f"{title:<12} {text}")
    return 0


def _asked(settings: Settings) -> list[str]:
    return [] if settings.size is None else ["--size", settings.size]


def _classes(package: Package) -> str:
    more = ", ..." if len(package.labels) > _SHOWN else ""
    return f"{len(package.labels)}: {', '.join(package.labels[:_SHOWN])}{more}"


def _photos(package: Package) -> str:
    seen = package.preprocessing
    scaled = "shorter side" if isinstance(seen.size, int) else "to cover its proportions, their shorter side"
    return (
        f"{scaled} to {counted(seen.resize, 'pixel')} ({seen.interpolation}), centre {size_text(seen.size)}, "
        f"mean {list(seen.mean)}, std {list(seen.std)}"
    )


def _optimised(package: Package, cache: Path) -> str:
    """What the optimised variant is built from."""
    sha256 = file_sha256(package.source)
    files = CalibrationFiles.of(package, cache, sha256)
    choice = files.choose(sha256)
    if choice.calibration is None:
        return " ".join(filter(None, ["no calibration: in the precision of its file.", choice.remark]))
    verdict = choice.calibration.verdict
    gate = "" if verdict is None else f", gate: {verdict}"
    where = "made on this machine" if choice.path == files.own else "the model's own"
    return f"from a calibration, {where}: {choice.path}{gate}"
