"""The `tessera` command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from tessera.app.arguments.commands import build_parser
from tessera.app.errors import TesseraError
from tessera.app.signals import orderly_end


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 fine, 1 it failed, 2 it was called wrongly."""
    arguments = build_parser().parse_args(argv)
    # Imported only now, so that a wrong call is told at once.
    from tessera.app.commands.flags import settings_from
    from tessera.app.commands.output import drop_output

    settings = settings_from(arguments)
    # By name, so that no command loads what only another needs.
    command = importlib.import_module(arguments.module)
    try:
        with orderly_end():
            code: int = command.run(arguments, settings)
    except _told_errors() as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if arguments.command == "serve":  # which survives that; this is something else
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
