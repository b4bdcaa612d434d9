"""The TOML file with settings: `--config FILE`, `TESSERA_CONFIG`."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from tessera.app.errors import ConfigFileError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ConfigFile(PydanticBaseSettingsSource):
    """The source of settings that stands behind flags and environment, which also say where the file is."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """One setting's value; unused, as `__call__` reads the file whole."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read the file's settings; none where no file is named.

        Raises:
            ConfigFileError: It cannot be read, is not TOML, or has a key that is no setting; the message names it.
        """
        named = self.current_state.get("config")
        return {} if named is None else read_config(Path(named), self.settings_cls.model_fields.keys() - {"config"})


def read_config(path: Path, known: set[str]) -> dict[str, Any]:
    """Read a flat TOML file whose keys are in `known`.

    Raises:
        ConfigFileError: See `ConfigFile`.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigFileError(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigFileError(f"The configuration file {path} is not valid TOML: {error}.") from error
    unknown = [_with_hint(name, known) for name in sorted(values.keys() - known)]
    if unknown:
        raise ConfigFileError(f"The configuration file {path} has keys that are no settings: {', '.join(unknown)}.")
    return values


def _with_hint(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"{name!r} (did you mean {near[0]!r}?)" if near else repr(name)
