"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tessera.engine.errors import ModelError

PARTIAL_SUFFIX = ".partial"


def check_target(path: str | os.PathLike[str]) -> None:
    """Find out before a long computation whether its result could be written to `path`.

    Raises:
        ModelError: it could not; the message says why.
    """
    target = Path(path)
    folder = target.parent
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder} to write {target.name} into.")
    if target.is_dir():
        raise ModelError(f"Cannot write {target}: it is a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ModelError(f"Cannot write {target}: {folder} is read-only for this user.")


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write into that becomes `path` when the block ends well: readers see the old file or the whole new one.

    That holds after a crash, too.

    Raises:
        ModelError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        try:
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"Cannot write {target}: {error.strerror or error}.") from error


def write_whole(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write `payload` to `path`, as `whole_file` does.

    Raises:
        ModelError: the file cannot be written.
    """
    with whole_file(path) as file:
        file.write(payload)
