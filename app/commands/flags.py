"""From flags, environment and file to settings."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection

from pydantic import ValidationError

from tessera.app.errors import ConfigFileError
from tessera.app.platform_port import VARIABLE
from tessera.app.settings import Settings


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Build the settings from flags, environment and file; on a bad value say which, and exit with code 2."""
    given = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    if (what := getattr(arguments, "what", None)) is not None:
        if "model_path" in given:
            raise _refused(["the model is named twice, as WHAT and by --model-path; keep one"])
        given["model_path"] = what
    try:
        return Settings(**given)
    except ConfigFileError as error:
        problems = [str(error)]
    except ValidationError as error:
        problems = [_describe(problem["loc"], problem["msg"], problem["input"], given) for problem in error.errors()]
    raise _refused(problems)


def _refused(problems: list[str]) -> SystemExit:
    for problem in problems:
        print(f"tessera: {problem}", file=sys.stderr)
    return SystemExit(2)


def unknown_variables() -> list[str]:
    """Environment variables that look like settings and are none; `TESSERA_ISA` is the engine's."""
    known = {f"TESSERA_{name.upper()}" for name in Settings.model_fields} | {"TESSERA_ISA"}
    return sorted(name for name in os.environ if name.startswith("TESSERA_") and name.upper() not in known)


def _describe(location: tuple[int | str, ...], message: str, value: object, given: Collection[str]) -> str:
    text = message.removeprefix("Value error, ")
    if not location:
        return text
    name = str(location[0])
    flag, variable = f"--{name.replace('_', '-')}", f"TESSERA_{name.upper()}"
    if name in given or variable in os.environ or name not in Settings.model_fields:
        return f"{flag} ({variable}): {text}"
    if name == "port" and os.environ.get(VARIABLE) == value:
        return f"{VARIABLE}: {text}"
    return f"{name} in the configuration file: {text}"
