"""The variable `PORT`, by which platforms that run containers say where they send requests."""

from __future__ import annotations

import os
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

VARIABLE = "PORT"


class PlatformPort(PydanticBaseSettingsSource):
    """The last source of settings: it says `port` where nobody else does."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """One setting's value; unused, as `__call__` reads all that there is."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read the variable; one that is empty says nothing, nor does it where a port is set."""
        named = os.environ.get(VARIABLE)
        return {"port": named} if named and "port" not in self.current_state else {}
