"""A table of `model.toml`, value by value."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tessera.engine.errors import ModelError
from tessera.models.preprocessing.image_size import LARGEST_IMAGE, SIZE_FORMS, Size, read_size, wrong_sizes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LONGEST_NAME = 255  # of a file, in bytes: what file systems take


class TomlTable:
    """Gives typed values, and complains about what is missing, wrong or left over. Each value can be taken once.

    Every method that takes a value raises a `ModelError` that names file and key.

    Args:
        path: the file.
        values: what the table holds.
        prefix: what stands before its keys in complaints, such as "ascend."; empty for the whole file.
    """

    def __init__(self, path: Path, values: dict[str, Any], prefix: str = "") -> None:
        self._path = path
        self._values = dict(values)
        self._prefix = prefix

    @classmethod
    def read(cls, path: Path) -> TomlTable:
        """The whole of a file.

        Raises:
            ModelError: it cannot be read, or is no TOML.
        """
        try:
            return cls(path, tomllib.loads(path.read_text(encoding="utf-8-sig")))
        # A ValueError also is what Python says of a number with thousands of digits.
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"Cannot read {path}: {error}.") from error

    def __bool__(self) -> bool:
        """Whether anything is left in it."""
        return bool(self._values)

    def text(self, key: str, default: str | None = None) -> str:
        """A text, which must not be empty unless there is a default."""
        value = self._values.pop(key, default)
        if not isinstance(value, str) or (not value and default is None):
            raise self.complaint(key, "is missing" if value is None else "must be a text")
        return value

    def table(self, key: str) -> TomlTable:
        """A table inside this one; empty where it is missing."""
        value = self._values.pop(key, {})
        if not isinstance(value, dict):
            raise self.complaint(key, "must be a table")
        return TomlTable(self._path, value, f"{self._prefix}{key}.")

    def file(self, key: str, default: str | None = None) -> Path:
        """A file in the same folder, which need not exist."""
        name = self.text(key, default)
        if (
            not name
            or Path(name).name != name
            or name in (".", "..")
            or "\0" in name
            or len(name.encode()) > _LONGEST_NAME
        ):
            raise self.complaint(key, "must name a file in the same folder")
        return self._path.parent / name

    def pixels(self, key: str, default: int) -> int:
        """A length in pixels."""
        value = self._values.pop(key, default)
        if type(value) is not int or not 1 <= value <= LARGEST_IMAGE:
            raise self.complaint(key, f"must be a whole number from 1 to {LARGEST_IMAGE}")
        return value

    def sizes(self, default: Size) -> list[Size]:
        """What `size` says, or `sizes`, of which there is one at most."""
        if "sizes" not in self._values:
            return [self._size("size", self._values.pop("size", default))]
        told = self._values.pop("sizes")
        if "size" in self._values:
            raise self.complaint("size", "goes without 'sizes', whose first one is the usual size")
        if not isinstance(told, list) or not told:
            raise self.complaint("sizes", f"must be a list of sizes, each {SIZE_FORMS}")
        sizes = [self._size("sizes", size) for size in told]
        if problem := wrong_sizes(sizes):
            raise self.complaint("sizes", problem)
        return sizes

    def _size(self, key: str, told: object) -> Size:
        size = read_size(told)
        if size is None:
            raise self.complaint(
                key, f"must be {SIZE_FORMS}" if key == "size" else f"must hold sizes, each {SIZE_FORMS}"
            )
        return size

    def triple(self, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
        """Three numbers: one for red, green and blue each."""
        value = self._values.pop(key, list(default))
        is_fine = isinstance(value, list) and len(value) == 3 and all(type(x) in (int, float) for x in value)
        if not is_fine or not all(-1000 < x < 1000 for x in value):
            raise self.complaint(key, "must be three numbers")
        red, green, blue = (float(x) for x in value)
        return red, green, blue

    def refuse_leftovers(self) -> None:
        """Complain about what nobody has taken."""
        if self._values:
            raise self.complaint(min(self._values), "is not a known key")

    def complaint(self, key: str, problem: str) -> ModelError:
        """The error that says what is wrong with a value."""
        return ModelError(f"{self._path}: '{self._prefix}{key}' {problem}.")
