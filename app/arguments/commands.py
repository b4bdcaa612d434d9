"""The whole command line: every command, its arguments, and the module that does it."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from tessera.app.arguments import models, runs
from tessera.app.arguments.parser import Parser

SHELLS = ("bash", "zsh", "fish")

_PACKAGE = "tessera.app.commands"


def build_parser() -> Parser:
    """The parser of `tessera`. Its result names the module in `module`, which has `run(arguments, settings)`."""
    parser = Parser(
        prog="tessera",
        usage="tessera COMMAND [options]",
        description="ResNet-50 over REST in two variants, baseline and optimised.",
        epilog="`tessera COMMAND --help` describes each.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, prog="tessera", title="commands", parser_class=Parser
    )
    for name, (purpose, describe) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=_text(describe), allow_abbrev=False)
        command.set_defaults(module=f"{_PACKAGE}.{name}")
        describe(command)
    return parser


class _Version(argparse.Action):
    """Prints the version, which takes a look at the installed packages, and ends."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        from tessera.app.version import service_version

        parser.exit(0, f"tessera {service_version()}\n")


def _models(parser: Parser) -> None:
    """List and show models; make, quantise, evaluate or remove them."""
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, title="actions", parser_class=Parser
    )
    for name, (purpose, describe) in models.ACTIONS.items():
        action = actions.add_parser(
            name,
            help=purpose,
            description=_text(describe),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.set_defaults(module=f"{_PACKAGE}.models.{describe.__name__}")
        describe(action)


def _completion(parser: Parser) -> None:
    """Print what completes commands and flags in a shell: put it where yours looks, as docs/operating.md says."""
    parser.add_argument("shell", choices=SHELLS, help="your shell")


def _text(describe: Callable[[Parser], None]) -> str:
    return inspect.getdoc(describe) or ""


# Command -> what it does, and who describes its arguments.
COMMANDS: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "serve": ("serve a model over HTTP", runs.serve),
    "classify": ("label photos on this machine, without a server", runs.classify),
    "bench": ("compare the variants' speed, paired", runs.bench),
    "profile": ("time every layer of each variant", runs.profile),
    "report": ("measure everything, as one HTML file to pass on", runs.report),
    "models": (", ".join(models.ACTIONS), _models),
    "completion": ("complete commands and flags in your shell", _completion),
}
