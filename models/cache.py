"""The cache folder: where built graphs and computed calibrations are kept, safe against two processes at once."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tessera.engine.errors import ModelError

_POLL_SECONDS = 0.1


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/tessera`, or `~/.cache/tessera`.

    Raises:
        ModelError: this user has no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "tessera"
    except RuntimeError as error:
        raise ModelError(
            "This user has no home folder to keep built models in. Point TESSERA_CACHE_DIR or XDG_CACHE_HOME at a "
            "folder that can be written to."
        ) from error


def build_folder(cache: Path, name: str, fingerprint: str) -> Path:
    """Where the graphs of one state of one model are kept."""
    return cache / "models" / f"{name}-{fingerprint[:16]}"


def build_folders(cache: Path, name: str) -> list[Path]:
    """Where graphs of models of that name are kept, of all their states."""
    is_one = re.compile(re.escape(name) + "-[0-9a-f]{16}")
    folder = cache / "models"
    return sorted(entry for entry in folder.iterdir() if is_one.fullmatch(entry.name)) if folder.is_dir() else []


def calibration_file(cache: Path, name: str, fingerprint: str) -> Path:
    """Where a calibration that was made on this machine is kept: of one model, with its weights and preprocessing."""
    return cache / "calibrations" / f"{name}-{fingerprint[:16]}.json"


def profile_file(cache: Path, name: str, fingerprint: str) -> Path:
    """Where a profile of one state of one model on one machine is kept."""
    return cache / "profiles" / f"{name}-{fingerprint[:16]}.json"


def downloads_folder(cache: Path, name: str) -> Path:
    """Where the file of a catalogue's model is kept while it arrives."""
    return cache / "downloads" / name


def import_folder(cache: Path, fingerprint: str) -> Path:
    """Where the model folder lies that was made of a file which is served as it is."""
    return cache / "imported" / fingerprint[:16]


def library_folder(cache: Path) -> Path:
    """Where pulled and imported models are kept when no other folder is named."""
    return cache / "library"


def make_folder(folder: Path) -> None:
    """Create a cache folder and its parents.

    Raises:
        ModelError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"Cannot create the cache folder {folder}: {error.strerror or error}. "
            "Point TESSERA_CACHE_DIR or XDG_CACHE_HOME at a folder that can be written to."
        ) from error


@contextmanager
def exclusive(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a cache folder; the lock goes away with the process that holds it, however that ends.

    Args:
        folder: an existing folder.
        on_wait: called once if another process has to be waited for.

    Raises:
        ModelError: the lock file cannot be opened.
    """
    path = folder / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ModelError(f"Cannot open the lock {path}: {error.strerror or error}.") from error
    try:
        waited = False
        while not _try_lock(descriptor):
            if not waited:
                on_wait()
                waited = True
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
