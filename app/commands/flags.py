"""Command line flags that mirror the settings one to one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from pydantic import ValidationError

from app.settings import Settings

MODEL_SETTINGS = ("model_path", "models", "cache_dir")
RUN_SETTINGS = (*MODEL_SETTINGS, "backend", "threads")


def add_settings_flags(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Add `--max-batch` for setting `max_batch` and so on; None adds every setting.

    A flag that is not given leaves its setting to the environment and the default.
    """
    for name in Settings.model_fields if names is None else names:
        field = Settings.model_fields[name]
        default = "" if field.default is None else f" (default {field.default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=name.rpartition("_")[2].upper(),
            default=argparse.SUPPRESS,
            help=f"{field.description}{default} [TESSERA_{name.upper()}]".replace("%", "%%"),
        )


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Build the settings from parsed flags and the environment; on a bad value say which, and exit with code 2."""
    given = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    try:
        return Settings(**given)
    except ValidationError as error:
        for problem in error.errors():
            print(f"tessera: {_describe(problem['loc'], problem['msg'])}", file=sys.stderr)
        raise SystemExit(2) from None


def _describe(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    if not location:
        return text
    name = str(location[0])
    return f"--{name.replace('_', '-')} (TESSERA_{name.upper()}): {text}"
