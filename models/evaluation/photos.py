"""Labelled photos: an ImageNet-style folder of class folders, a flat folder of `NNN_name` files, or a list."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tessera.engine.errors import ModelError
from tessera.wording import counted

_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_DIGITS = 9
_FLAT = re.compile(r"(\d+)_.+")


class LabelledPhoto(NamedTuple):
    """A photo and the index of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class PhotoSet:
    """Labelled photos, always in the same order, walked anew by every iteration so that no list of them is kept.

    Attributes:
        folder: where they lie.
        photos: walks them.
        count: how many there are.
        digest: SHA-256 over every path and label in their order.
    """

    folder: Path
    photos: Callable[[], Iterator[LabelledPhoto]]
    count: int
    digest: str


class ClassNames:
    """Which class a folder's name means: one of the wnids, a label, or an index.

    Args:
        labels: the model's labels.
        wnids: the classes' other names (WordNet ids), in the same order; empty when there are none.
    """

    def __init__(self, labels: Sequence[str], wnids: Sequence[str] = ()) -> None:
        self.count = len(labels)
        self._indices: dict[str, int] = {}
        for names in (wnids, labels):
            for index, name in enumerate(names):
                # Two classes of ImageNet are called "crane"; such a name alone decides nothing.
                key = _folded(name)
                self._indices[key] = index if self._indices.get(key, index) == index else -1

    def index(self, name: str) -> int | None:
        """Index of the class, None where the name is unknown or means several."""
        found = self._indices.get(_folded(name))
        if found is not None:
            return found if found >= 0 else None
        return int(name) if _is_index(name, self.count) else None


def find_labelled(folder: Path, classes: ClassNames, listed: Path | None = None) -> PhotoSet:
    """Find the photos of a folder with their classes.

    Args:
        folder: one folder per class, or files whose names begin with the index of their class and an underscore; or,
            with a list, what its paths are relative to.
        classes: what class names mean.
        listed: text file of lines `path index`.

    Raises:
        ModelError: there is no such folder or list, a class is unknown, or there are no photos.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no folder of photos {folder}.")
    if listed is not None:
        return _scanned(folder, lambda: _walk_list(folder, listed, classes.count), f"{listed} lists no photos.")
    names = _names(folder)
    class_folders = {name: classes.index(name) for name in names if (folder / name).is_dir()}
    unknown = [name for name, index in class_folders.items() if index is None]
    if unknown:
        raise ModelError(
            f"Some folders are not named like one class of the model, {len(unknown)} of {len(class_folders)} folders "
            f"in {folder}: {', '.join(unknown[:3])}. Folders are named by label or index, or by the names in a "
            "--wnids file."
        )
    known = {name: index for name, index in class_folders.items() if index is not None}
    if known:
        if loose := next(filter(is_photo, (name for name in names if name not in known)), None):
            raise ModelError(f"{folder} holds folders of classes, and beside them photos such as {loose}. Move those.")
        return _scanned(
            folder, lambda: _walk_classes(folder, known), f"There are no photos in the folders of {folder}."
        )
    return _scanned(folder, lambda: _walk_flat(folder, classes.count), f"There are no photos in {folder}.")


def read_wnids(path: Path, classes: int) -> tuple[str, ...]:
    """Read other names of the classes, one per line, in the order of the network's outputs.

    Raises:
        ModelError: the file cannot be read, or has not one line per class.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"Cannot read the class names {path}: {error}.") from error
    if len(lines) != classes or not all(line.strip() for line in lines):
        raise ModelError(
            f"{path} has {counted(len(lines), 'line')}, but the model has {counted(classes, 'class', 'classes')}; it "
            "needs one line each."
        )
    return tuple(line.split()[0] for line in lines)


def _is_index(text: str, classes: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) < classes


def _folded(name: str) -> str:
    return name.strip().casefold().replace("_", " ")


def _scanned(folder: Path, photos: Callable[[], Iterator[LabelledPhoto]], nothing: str) -> PhotoSet:
    digest, count = hashlib.sha256(), 0
    for path, label in photos():
        digest.update(os.fsencode(path.relative_to(folder) if path.is_relative_to(folder) else path))
        digest.update(f"\0{label}\n".encode())
        count += 1
    if not count:
        raise ModelError(nothing)
    return PhotoSet(folder, photos, count, digest.hexdigest())


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise ModelError(f"Cannot look into {folder}: {error.strerror or error}.") from error


def _walk_classes(folder: Path, classes: Mapping[str, int]) -> Iterator[LabelledPhoto]:
    for name, label in classes.items():
        for place, below, files in os.walk(folder / name):
            below.sort()
            yield from (LabelledPhoto(Path(place, file), label) for file in sorted(files) if is_photo(file))


def _walk_flat(folder: Path, classes: int) -> Iterator[LabelledPhoto]:
    for name in filter(is_photo, _names(folder)):
        match = _FLAT.fullmatch(name)
        if match is None or not _is_index(match[1], classes):
            raise ModelError(
                f"The class of {folder / name} is not known: put photos into a folder per class, begin their names "
                f"with the class's index (0 to {classes - 1}) and an underscore, or give a --list."
            )
        yield LabelledPhoto(folder / name, int(match[1]))


def _walk_list(folder: Path, listed: Path, classes: int) -> Iterator[LabelledPhoto]:
    try:
        with listed.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                path, _, index = line.rstrip().rpartition(" ")
                path = path.strip()
                if not path or "\0" in path or not _is_index(index, classes):
                    raise ModelError(
                        f"Line {number} of {listed} is not 'path index' with an index from 0 to {classes - 1}."
                    )
                yield LabelledPhoto(folder / path, int(index))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"Cannot read the list {listed}: {error}.") from error


def is_photo(name: str) -> bool:
    """Whether a file is taken for a photo, by the end of its name."""
    return name.lower().endswith(_SUFFIXES)
