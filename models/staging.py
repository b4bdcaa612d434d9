"""Making a model folder so that it appears whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tessera.engine.errors import ModelError
from tessera.engine.quantize.files import PARTIAL_SUFFIX


def check_folder(into: Path) -> None:
    """Find out before long work whether a folder of models could be written to; it need not exist yet.

    Raises:
        ModelError: it could not.
    """
    there = next(folder for folder in (into, *into.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise ModelError(f"Cannot write to the models folder {into}: {there} is no folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ModelError(f"Cannot write to the models folder {into}: {there} is read-only for this user.")


@contextmanager
def staging_folder(into: Path, name: str, source: Path | None = None) -> Iterator[Path]:
    """A folder beside the place of the new model that is gone when the block is left.

    Args:
        into: folder of model folders.
        name: the new model's.
        source: the file that the user gave. Errors name this, not what the staging folder holds, which is gone by then.

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
    except ModelError as error:
        shown = str(into / name if source is None else source)
        hidden = re.compile(re.escape(str(folder)) + ("" if source is None else r"(/[\w.-]*\w)?"))
        error.args = tuple(hidden.sub(lambda _: shown, arg) if isinstance(arg, str) else arg for arg in error.args)
        raise
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
        # Renaming onto a folder that is not empty fails: the first process keeps the name.
        reason = "it exists" if target.exists() else error.strerror or str(error)
        raise ModelError(f"Cannot create {target}: {reason}.") from error
