"""Where a batch's photos come from: files, folders, tar files, lists of paths, each listed as it is wanted."""

from __future__ import annotations

import os
import stat
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from tessera.models.evaluation.photos import is_photo

STANDARD_INPUT = "-"
_TARS = (".tar", ".tar.gz", ".tgz")
_LISTS = (".txt", ".lst", ".list")
_LONGEST_LINE = 64 * 1024
_LARGEST_FILE = 256 * 1024 * 1024
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error)


class Photo(NamedTuple):
    """A file that may be a photo.

    Attributes:
        name: as results call it.
        read: its bytes, once; raises OSError.
    """

    name: str
    read: Callable[[], bytes]


def find_photos(sources: Iterable[Path]) -> Iterator[Photo]:
    """The photos of all sources, in the order of these.

    A folder's are those with a photo's suffix, in the order of their names; so are a tar file's, in its own order. A
    list, or "-" for standard input, holds a path a line. What cannot be listed is a photo that cannot be read.
    """
    for source in sources:
        yield from _expand(source)


def count_photos(sources: Iterable[Path]) -> int | None:
    """How many `find_photos` will find, without reading them; None where that shows only as they come."""
    paths = list(sources)
    if any(str(path) == STANDARD_INPUT for path in paths):
        return None
    return sum(_count(path) for path in paths)


def portions(sources: Iterable[Path], size: int) -> Iterator[list[str]]:
    """What `find_photos` would find, as names that other processes can take to `find_portion`, in the same order.

    Args:
        sources: as for `find_photos`.
        size: most names in a portion; a tar file, which is read in one go, is a portion by itself.
    """
    portion: list[str] = []
    for source in sources:
        is_tar = _is_tar(source) and not source.is_dir()
        if is_tar and portion:
            yield portion
            portion = []
        for name in (str(source),) if is_tar else (photo.name for photo in _expand(source)):
            portion.append(name)
            if is_tar or len(portion) == size:
                yield portion
                portion = []
    if portion:
        yield portion


def find_portion(names: Iterable[str]) -> Iterator[Photo]:
    """The photos of one of `portions`."""
    for name in names:
        path = Path(name)
        if _is_tar(path):
            yield from _unpack(path)
        else:
            yield Photo(name, partial(_read, path, regular=True))


def _expand(source: Path) -> Iterator[Photo]:
    name = source.name.lower()
    if str(source) == STANDARD_INPUT:
        yield from _listed(sys.stdin.buffer)
    elif source.is_dir():
        yield from _walk(source)
    elif _is_tar(source):
        yield from _unpack(source)
    elif name.endswith(_LISTS):
        try:
            with source.open("rb") as lines:
                yield from _listed(lines)
        except OSError as error:
            yield _unreadable(str(source), error)
    else:
        yield Photo(str(source), partial(_read, source))


def _is_tar(source: Path) -> bool:
    return source.name.lower().endswith(_TARS)


def _count(source: Path) -> int:
    if source.is_file() and _is_tar(source):
        try:
            return sum(1 for _ in _members(source))
        except _DAMAGE:
            return 0
    return sum(1 for _ in _expand(source))


def _walk(folder: Path) -> Iterator[Photo]:
    failed: list[OSError] = []
    for place, below, files in os.walk(folder, onerror=failed.append):
        below.sort()
        for file in sorted(files):
            if not file.startswith(".") and is_photo(file):
                path = Path(place, file)
                yield Photo(str(path), partial(_read, path, regular=True))
        while failed:
            error = failed.pop(0)
            yield _unreadable(str(error.filename), error)
    for error in failed:
        yield _unreadable(str(error.filename), error)


def _listed(lines: BinaryIO) -> Iterator[Photo]:
    while line := lines.readline(_LONGEST_LINE):
        if path := os.fsdecode(line.rstrip(b"\r\n")):
            yield Photo(path, partial(_read, Path(path)))


def _unpack(shard: Path) -> Iterator[Photo]:
    try:
        for tar, member in _members(shard):
            name = f"{shard}/{member.name}"
            if member.size > _LARGEST_FILE:
                yield _unreadable(name, _too_large())
            elif (file := tar.extractfile(member)) is not None:
                # Read now, as a tar file is read in one go; given away once, so that it is not kept longer than needed.
                yield Photo(name, [file.read()].pop)
    except _DAMAGE as error:
        yield _unreadable(str(shard), OSError(f"The tar file is damaged or cannot be read: {error}"))


def _members(shard: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with tarfile.open(shard) as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it keeps every header that it has seen
            if member.isfile() and is_photo(Path(member.name).name):
                yield tar, member
        # Its reader takes a damaged header for the end.
        if tar.fileobj is not None:
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"no header at byte {tar.offset:,}")


def _read(path: Path, *, regular: bool = False) -> bytes:
    """A file's bytes; of pipes and devices only where they were asked for by name."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | (os.O_NONBLOCK if regular else 0))  # which does not wait for a pipe's other end

    try:
        with open(path, "rb", opener=opener) as file:
            found = os.fstat(file.fileno())
            if regular and not stat.S_ISREG(found.st_mode):
                raise OSError("It is no regular file")
            if found.st_size > _LARGEST_FILE:
                raise _too_large()
            data = file.read() if stat.S_ISREG(found.st_mode) else file.read(_LARGEST_FILE + 1)
    except ValueError as error:  # a zero byte in the path
        raise OSError(str(error)) from error
    if len(data) > _LARGEST_FILE:
        raise _too_large()
    return data


def _too_large() -> OSError:
    return OSError(f"The file is larger than {_LARGEST_FILE // (1024 * 1024)} MiB")


def _unreadable(name: str, error: OSError) -> Photo:
    return Photo(name, partial(_fail, error))


def _fail(error: OSError) -> NoReturn:
    raise error
