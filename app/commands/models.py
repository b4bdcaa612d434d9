"""List the models that can be served, pull official ones, add your own, build one, or convert it for Ascend."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from app.commands.flags import MODEL_SETTINGS, add_settings_flags, settings_from
from app.commands.progress import ProgressDisplay
from app.errors import StartupError
from app.imaging.geometry import CROP, SHORTER_SIDE
from app.loading import find_model, open_configured_model
from app.settings import Settings
from models.ascend.convert import GEARS, ConvertOptions, convert_model
from models.cache import default_cache, library_folder
from models.catalogue import CATALOGUE, find_entry, read_catalogue
from models.importer import SUFFIXES, ImportOptions, add_model
from models.package import Package, read_package
from models.pull import pull_model
from models.registry import BUNDLED, list_models

# Settings that decide where models are kept.
_PLACES = ("models", "cache_dir")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's actions and arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the bundled model and your own, or those in a folder of models")
    add_settings_flags(listing, _PLACES)
    build = actions.add_parser("build", help="build a model's variants into the cache")
    add_settings_flags(build, MODEL_SETTINGS)
    names = "\n".join(f"  {name:<24} {entry.description}" for name, entry in read_catalogue().items())
    pull = actions.add_parser(
        "pull",
        help="download an official model, checked against its pinned SHA-256",
        epilog=f"models:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pull.add_argument("name", metavar="NAME", help="one of the models below")
    pull.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        default=[],
        help="address of the same file to try first; with a slash at its end, of a folder that holds it; repeatable",
    )
    pull.add_argument(
        "--catalogue", metavar="FILE", type=Path, default=CATALOGUE, help="a catalogue of your own in place of this one"
    )
    _add_import_flags(pull)
    add = actions.add_parser("add", help=f"import a model file ({', '.join(SUFFIXES)})")
    add.add_argument("path", metavar="PATH", type=Path, help="ONNX graph, or state dict of a ResNet")
    add.add_argument("--name", help="the model's name (default: the file's)")
    add.add_argument("--mean", type=_triple, metavar="R,G,B", help="mean of images in 0..1 units (default ImageNet's)")
    add.add_argument("--std", type=_triple, metavar="R,G,B", help="standard deviation, likewise")
    add.add_argument("--size", type=int, metavar="PIXELS", help="the network's input (default: the graph's, or 224)")
    add.add_argument("--resize", type=int, metavar="PIXELS", help="a photo's shorter side (default 8/7 of the size)")
    _add_import_flags(add)
    convert = actions.add_parser("convert", help="make the .om files of both variants for an Ascend chip")
    convert.add_argument("--target", metavar="SOC", required=True, help="'Ascend' and the name that npu-smi shows")
    convert.add_argument("--batches", type=_numbers, metavar="N,N,...", default=GEARS, help="batch sizes (1,2,4,8,16)")
    convert.add_argument("--int8", metavar="PHOTOS", type=Path, help="optimised in int8: folder of photos for AMCT")
    convert.add_argument("--operators", metavar="FOLDER", type=Path, help="optimised with our own convolution: folder")
    convert.add_argument("--into", metavar="FOLDER", type=Path, help="folder of models to put it in")
    add_settings_flags(convert, MODEL_SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Do the action; returns 0."""
    settings = settings_from(arguments)
    match arguments.action:
        case "list":
            return _list(settings)
        case "build":
            return _build(settings)
        case "pull":
            return _pull(arguments, settings)
        case "convert":
            return _convert(arguments, settings)
        case _:
            return _add(arguments, settings)


def _add_import_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help='class names, one per line (default: "class 0", ...)'
    )
    parser.add_argument("--into", metavar="FOLDER", type=Path, help="folder of models to put it in")
    add_settings_flags(parser, _PLACES)


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    return tuple(int(part) for part in text.split(","))


def _triple(text: str) -> tuple[float, float, float]:
    """Three numbers with commas between."""
    red, green, blue = (float(part) for part in text.split(","))
    return red, green, blue


def _list(settings: Settings) -> int:
    if settings.models is not None and not settings.models.is_dir():
        raise StartupError(f"The models folder {settings.models} does not exist.")
    table = Table("model", "labels", "variants", "built", "ascend", "folder", box=box.SIMPLE_HEAD)
    found = list_models(settings.models, cache=settings.cache_dir)
    library = library_folder(_cache(settings))
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


def _build(settings: Settings) -> int:
    with ProgressDisplay() as display:
        model = open_configured_model(settings, display)
    for name, variant in sorted(model.variants.items()):
        print(f"{model.name} {name} ({variant.precision}): {variant.path}")
    return 0


def _pull(arguments: argparse.Namespace, settings: Settings) -> int:
    entry = find_entry(arguments.name, arguments.catalogue)
    with ProgressDisplay() as display:
        package = pull_model(
            entry,
            _destination(arguments, settings),
            _cache(settings),
            options=ImportOptions(labels=arguments.labels),
            mirrors=arguments.mirror,
            progress=display,
        )
    return _tell(package)


def _add(arguments: argparse.Namespace, settings: Settings) -> int:
    options = ImportOptions(
        name=arguments.name,
        labels=arguments.labels,
        mean=arguments.mean,
        std=arguments.std,
        size=arguments.size,
        resize=arguments.resize,
    )
    return _tell(add_model(arguments.path, _destination(arguments, settings), options))


def _convert(arguments: argparse.Namespace, settings: Settings) -> int:
    package = read_package(find_model(settings) or BUNDLED)
    options = ConvertOptions(arguments.target, arguments.batches, arguments.int8, arguments.operators)
    with ProgressDisplay() as display:
        conversion = convert_model(package, _destination(arguments, settings), options, display)
    for command in conversion.commands:
        print(f"# {command.title}\n{command}")
    if conversion.missing:
        print(
            f"tessera: nothing was converted: {' and '.join(conversion.missing)} of CANN are not on the PATH (is its "
            f"set_env.sh sourced?). Everything that they need is in {conversion.folder}: run convert.sh there, or in "
            "a copy of the folder on a machine with CANN; no NPU is needed for it.",
            file=sys.stderr,
        )
        return 1
    print(f"Serve it with: tessera serve --backend ascend --model-path {conversion.folder}")
    return 0


def _cache(settings: Settings) -> Path:
    return default_cache() if settings.cache_dir is None else settings.cache_dir


def _destination(arguments: argparse.Namespace, settings: Settings) -> Path:
    into: Path | None = arguments.into
    return into or settings.models or library_folder(_cache(settings))


def _tell(package: Package) -> int:
    print(f"{package.name}: {package.folder}")
    print(f"Serve it with: tessera serve --model-path {package.folder}")
    if package.labels[0] == "class 0":
        print(
            f"tessera: the file does not name its {len(package.labels)} classes; they are called 'class 0' and so on. "
            f"Write their names into {package.folder / 'labels.txt'}, one per line.",
            file=sys.stderr,
        )
    wanted = package.preprocessing
    if (wanted.size, wanted.resize) != (CROP, SHORTER_SIDE):
        print(
            f"tessera: this model is meant for photos scaled to {wanted.resize} and cropped to {wanted.size} pixels; "
            f"the service and `tessera classify` prepare them with {SHORTER_SIDE} and {CROP}.",
            file=sys.stderr,
        )
    return 0
