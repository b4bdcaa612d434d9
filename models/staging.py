"""Making a model folder so that it appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import ModelError
from engine.quantize.files import PARTIAL_SUFFIX


@contextmanager
def staging_folder(into: Path, name: str) -> Iterator[Path]:
    """A folder beside the place of the new model that is gone when the block is left.

    Raises:
        ModelError: it cannot be made.
    """
    folder = into / f".{name}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ModelError(f"Cannot write to the models folder {into}: {error.strerror or error}.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(folder: Path, target: Path) -> None:
    """Give a folder its final name.

    Raises:
        ModelError: there is one of that name already, or it cannot be renamed.
    """
    try:
        os.rename(folder, target)
    except OSError as error:
        # Renaming onto a folder that is not empty fails: whoever was first keeps the name.
        reason = "it exists" if target.exists() else error.strerror or str(error)
        raise ModelError(f"Cannot create {target}: {reason}.") from error
