"""Make the .om files of both variants for an Ascend chip, or all that is needed to make them elsewhere."""

from __future__ import annotations

import argparse
import sys

from tessera.app.commands.models.places import destination
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.served.selection import find_model
from tessera.app.settings import Settings
from tessera.models.ascend.convert import GEARS, ConvertOptions, convert_model
from tessera.models.package import read_package


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Convert, and print the commands; returns 1 when the tools are missing here."""
    package = read_package(find_model(settings))
    options = ConvertOptions(arguments.target, arguments.batches or GEARS, arguments.int8, arguments.operators)
    with ProgressDisplay() as display:
        conversion = convert_model(package, destination(arguments, settings), options, display)
    for command in conversion.commands:
        print(f"# {command.title}\n{command}")
    if conversion.missing:
        print(
            f"tessera: nothing was converted: {' and '.join(conversion.missing)} not found on the PATH (is CANN's "
            f"set_env.sh sourced?). Everything for it is in {conversion.folder}: run convert.sh there, or in "
            "a copy of the folder on a machine with CANN; no NPU is needed for it.",
            file=sys.stderr,
        )
        return 1
    print(f"Serve it with: tessera serve --backend ascend --model-path {conversion.folder}")
    return 0
