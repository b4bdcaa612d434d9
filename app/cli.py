"""The `tessera` command."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tessera.app.commands.output import drop_output
from tessera.app.errors import TesseraError
from tessera.app.signals import orderly_end
from tessera.app.version import service_version

# Command -> what it does; each lives in app/commands/<command>.py as add_arguments(parser) and run(arguments).
COMMANDS = {
    "serve": "serve a model over HTTP",
    "classify": "label image files on this machine, without a server",
    "bench": "compare the variants' speed, paired",
    "profile": "time every layer of each variant",
    "report": "measure everything, as one HTML file to pass on",
    "models": "list, show, pull, add, export, build, quantise, reset, convert, evaluate or remove models",
}

_USAGE = "\n".join(f"  {name:<10} {purpose}" for name, purpose in COMMANDS.items())


_WRONG_WORD = re.compile(r"unrecognized arguments: ([^\s=]+)|.*invalid choice: '([^']*)'")


class Parser(argparse.ArgumentParser):
    """argparse's, which says what is wrong first and in two lines, not after all of its usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unknown arguments are told by the parser of the action, which knows its flags."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """End with code 2."""
        words = [*self._option_string_actions, *(word for action in self._actions for word in action.choices or ())]
        wrong = _WRONG_WORD.match(message)
        near = difflib.get_close_matches(wrong[1] or wrong[2], words, 1) if wrong is not None else []
        meant = f"; did you mean {near[0]}?" if near else ""
        self.exit(2, f"{self.prog}: {message}{meant}\n`{self.prog} --help` lists what there is.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 fine, 1 it failed, 2 it was called wrongly."""
    parser = Parser(
        prog="tessera",
        usage="tessera COMMAND [options]",
        description="ResNet-50 over REST in two variants, baseline and optimised.",
        epilog=f"commands:\n{_USAGE}\n\n`tessera COMMAND --help` describes each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tessera {service_version()}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    # Imported by name so that `tessera --help` stays quick and one command never loads what only another needs.
    command = importlib.import_module(f"tessera.app.commands.{chosen.command}")
    options = Parser(prog=f"tessera {chosen.command}", description=command.__doc__, allow_abbrev=False)
    command.add_arguments(options)
    arguments = options.parse_args(chosen.arguments)
    try:
        with orderly_end():
            code: int = command.run(arguments)
    except _told_errors() as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if chosen.command == "serve":  # which survives that; this is something else
            raise
        # The reader of our output has left, as in `tessera models list | head -1`.
        drop_output()
        return 0
    except OSError as error:
        # An unforeseen error of disks, rights or descriptors is still the machine's affair, not a fault of ours.
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"tessera: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return code


def _told_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is all that a user needs. Those of the engine count where a command has loaded it."""
    if "tessera.engine" not in sys.modules:
        return (TesseraError,)
    from tessera.engine.errors import EngineError

    return (TesseraError, EngineError)


if __name__ == "__main__":
    sys.exit(main())
