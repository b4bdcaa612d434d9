"""Command line flags that mirror the settings one to one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterable

from pydantic import SecretStr, ValidationError

from tessera.app.errors import ConfigFileError
from tessera.app.settings import Settings

MODEL_SETTINGS = ("model_path", "models", "cache_dir")
RUN_SETTINGS = (*MODEL_SETTINGS, "backend", "threads")


def add_settings_flags(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Add `--max-batch` for setting `max_batch` and so on; None adds every setting.

    A flag that is not given leaves its setting to the environment, the file and the default. Secrets get no flag.
    """
    for name in flag_names() if names is None else names:
        field = Settings.model_fields[name]
        default = "" if field.default is None else f" (default {field.default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=name.rpartition("_")[2].upper(),
            default=argparse.SUPPRESS,
            help=f"{field.description}{default} [TESSERA_{name.upper()}]".replace("%", "%%"),
        )


def flag_names() -> list[str]:
    """The settings that have a flag: all but secrets, which would show in the list of processes."""
    return [name for name, field in Settings.model_fields.items() if field.annotation != SecretStr | None]


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Build the settings from flags, environment and file; on a bad value say which, and exit with code 2."""
    given = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    try:
        return Settings(**given)
    except ConfigFileError as error:
        problems = [str(error)]
    except ValidationError as error:
        problems = [_describe(problem["loc"], problem["msg"], given) for problem in error.errors()]
    for problem in problems:
        print(f"tessera: {problem}", file=sys.stderr)
    raise SystemExit(2)


def unknown_variables() -> list[str]:
    """Environment variables that look like settings and are none; `TESSERA_ISA` is the engine's."""
    known = {f"TESSERA_{name.upper()}" for name in Settings.model_fields} | {"TESSERA_ISA"}
    return sorted(name for name in os.environ if name.startswith("TESSERA_") and name.upper() not in known)


def _describe(location: tuple[int | str, ...], message: str, given: Collection[str]) -> str:
    text = message.removeprefix("Value error, ")
    if not location:
        return text
    name = str(location[0])
    flag, variable = f"--{name.replace('_', '-')}", f"TESSERA_{name.upper()}"
    if name in given or variable in os.environ or name not in Settings.model_fields:
        return f"{flag} ({variable}): {text}"
    return f"{name} in the configuration file: {text}"
