"""List and show models; pull, add or export others; build, quantise, reset, convert, evaluate or remove them."""

from __future__ import annotations

import argparse
from types import ModuleType

from tessera.app.commands.flags import settings_from
from tessera.app.commands.models import (
    add,
    build,
    convert,
    evaluate,
    export,
    listing,
    pull,
    quantise,
    remove,
    reset,
    show,
)

# Action -> its module: HELP, add_arguments(parser), run(arguments, settings) -> exit code.
ACTIONS: dict[str, ModuleType] = {
    "list": listing,
    "show": show,
    "build": build,
    "pull": pull,
    "add": add,
    "export": export,
    "quantise": quantise,
    "reset": reset,
    "remove": remove,
    "convert": convert,
    "evaluate": evaluate,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, module in ACTIONS.items():
        action = actions.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(action)


def run(arguments: argparse.Namespace) -> int:
    """Do the action; returns the exit code."""
    code: int = ACTIONS[arguments.action].run(arguments, settings_from(arguments))
    return code
