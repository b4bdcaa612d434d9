"""Import a model file: an ONNX graph, or the state dict of a ResNet."""

from __future__ import annotations

import argparse
from pathlib import Path

from tessera.app.commands.models.places import add_import_flags, destination, tell
from tessera.app.settings import Settings
from tessera.models.importer import SUFFIXES, ImportOptions, add_model
from tessera.models.preprocessing import INTERPOLATIONS

HELP = f"import a model file ({', '.join(SUFFIXES)})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the action's arguments."""
    parser.add_argument("path", metavar="PATH", type=Path, help="ONNX graph, or state dict of a ResNet")
    parser.add_argument("--name", help="the model's name (default: the file's)")
    parser.add_argument(
        "--mean", type=_triple, metavar="R,G,B", help="mean of images in 0..1 units (default ImageNet's)"
    )
    parser.add_argument("--std", type=_triple, metavar="R,G,B", help="standard deviation, likewise")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="the network's input (default: the graph's, or 224)")
    parser.add_argument("--resize", type=int, metavar="PIXELS", help="a photo's shorter side (default 8/7 of the size)")
    parser.add_argument("--interpolation", choices=INTERPOLATIONS, help="filter of the scaling (default bilinear)")
    add_import_flags(parser)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Import, and print where the model is."""
    options = ImportOptions(
        name=arguments.name,
        labels=arguments.labels,
        mean=arguments.mean,
        std=arguments.std,
        size=arguments.size,
        resize=arguments.resize,
        interpolation=arguments.interpolation,
    )
    tell(add_model(arguments.path, destination(arguments, settings), options))
    return 0


def _triple(text: str) -> tuple[float, float, float]:
    """Three numbers with commas between."""
    red, green, blue = (float(part) for part in text.split(","))
    return red, green, blue
