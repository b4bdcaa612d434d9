"""Reads the prototypes of the double's header."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DECLARATION = re.compile(r"^((?:const )?\w+ \**)(\w+)\(([^)]*)\);", re.MULTILINE)


@dataclass(frozen=True)
class Declaration:
    """One C prototype; types as written, without names and spaces: "const char*"."""

    name: str
    result: str
    arguments: tuple[str, ...]


def declarations(text: str) -> list[Declaration]:
    """The prototypes of a header."""
    return [_declaration(*match.groups()) for match in _DECLARATION.finditer(text)]


def _declaration(result: str, name: str, arguments: str) -> Declaration:
    written = [part.strip() for part in arguments.split(",") if part.strip() not in ("", "void")]
    return Declaration(name, _plain(result), tuple(_plain(re.sub(r"\w+$", "", part)) for part in written))


def _plain(text: str) -> str:
    return re.sub(r"\s*(\*+)\s*", r"\1", " ".join(text.split()))
