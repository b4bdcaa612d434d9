"""Whether a file is still the one that was read."""

from __future__ import annotations

from pathlib import Path

from tessera.engine.errors import ModelError

FileState = tuple[int, int, int]


def file_state(path: Path) -> FileState | None:
    """What changes when a file is replaced or rewritten; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def check_unchanged(path: Path, state: FileState | None) -> None:
    """Make sure that a file is the one that was loaded.

    Raises:
        ModelError: it is not.
    """
    if file_state(path) != state:
        raise ModelError(f"{path} is not the file that was loaded any more; load it again.")
