"""The catalogue: official model files by name, with what proves that the right bytes arrived."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera.engine.errors import ModelError
from tessera.models.preprocessing.transform import INTERPOLATIONS, Interpolation

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CATALOGUE = Path(__file__).resolve().parent / "catalogue.toml"

_HASH = re.compile(r"[0-9a-f]{8,64}")
_KEYS = {"description", "file", "bytes", "sha256", "urls", "resize", "interpolation"}


@dataclass(frozen=True)
class CatalogueEntry:
    """One official file.

    Attributes:
        name: what `tessera models pull` calls it.
        description: one line for people.
        file: name of the file.
        bytes: its size.
        sha256: its SHA-256 in hexadecimal, or the first 8 or more digits where its publisher gives no more.
        urls: where it is found; tried in order.
        resize: length in pixels that a photo's shorter side is scaled to; None for the default.
        interpolation: filter that photos are scaled with; None for the default.
    """

    name: str
    description: str
    file: str
    bytes: int
    sha256: str
    urls: tuple[str, ...]
    resize: int | None = None
    interpolation: Interpolation | None = None


def read_catalogue(path: Path = CATALOGUE) -> dict[str, CatalogueEntry]:
    """All entries by name.

    Raises:
        ModelError: the file cannot be read, or an entry is wrong; the message names it.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelError(f"Cannot read the catalogue {path}: {error}.") from error
    return {name: _entry(path, name, table) for name, table in tables.items()}


def find_entry(name: str, path: Path = CATALOGUE) -> CatalogueEntry:
    """The entry of that name.

    Raises:
        ModelError: there is none; the message lists all names.
    """
    entries = read_catalogue(path)
    if name not in entries:
        raise ModelError(
            f"The catalogue has no model '{name}'. It has: {', '.join(entries)}. "
            "A file of your own is imported with: tessera models add PATH"
        )
    return entries[name]


def _entry(path: Path, name: str, table: Any) -> CatalogueEntry:
    if not isinstance(table, dict) or not {*table} <= _KEYS:
        raise ModelError(f"{path}: '{name}' must be a table with no other keys than {', '.join(sorted(_KEYS))}.")
    urls, size, resize = table.get("urls"), table.get("bytes"), table.get("resize")
    file, digest = table.get("file"), table.get("sha256")
    checks = {
        "description": isinstance(table.get("description"), str),
        "file": isinstance(file, str) and Path(file).name == file and file not in ("", ".", ".."),
        "bytes": type(size) is int and size > 0,
        "sha256": isinstance(digest, str) and _HASH.fullmatch(digest) is not None,
        "urls": isinstance(urls, list) and bool(urls) and all(isinstance(url, str) for url in urls),
        "resize": resize is None or type(resize) is int,
        "interpolation": table.get("interpolation") in (None, *INTERPOLATIONS),
    }
    wrong = [key for key, is_fine in checks.items() if not is_fine]
    if wrong:
        raise ModelError(f"{path}: '{name}.{wrong[0]}' is missing or wrong.")
    return CatalogueEntry(name=name, **{**table, "urls": tuple(table["urls"])})
