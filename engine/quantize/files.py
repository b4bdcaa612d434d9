"""Writing files so that nobody ever reads half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from engine.errors import ModelError

PARTIAL_SUFFIX = ".partial"


def write_whole(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write `payload` to `path`: a reader sees the old file or the whole new one, also after a crash.

    Raises:
        ModelError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        try:
            with partial.open("xb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"Cannot write {target}: {error.strerror or error}.") from error
