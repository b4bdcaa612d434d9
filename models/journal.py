"""A file that survives its process: a first line that says what it is of, then a line of JSON per piece of work."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tessera.engine.errors import ModelError
from tessera.engine.quantize.files import check_target

_FORMAT = 1
_BEGIN = b'{"format":'


def check_journal(path: Path, what: str) -> None:
    """Find out before anything is loaded whether a file can be such a journal.

    Args:
        path: the file, which may be missing.
        what: what it would be of, such as "an evaluation".

    Raises:
        ModelError: it cannot be written, or holds something else.
    """
    check_target(path)
    try:
        with path.open("rb") as file:
            begin = file.read(len(_BEGIN))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ModelError(f"Cannot open the state {path}: {error.strerror or error}.") from error
    if not _BEGIN.startswith(begin):
        raise _foreign(path, what)


class Journal:
    """The file; each line is written whole or not at all, and one that a crash cut short is removed.

    A context manager; while it is open no other process can open it.

    Args:
        path: the file; created when missing.
        identity: what the work depends on, by name: JSON values. The same must be asked for next time.
        what: what it is of, such as "an evaluation".

    Raises:
        ModelError: it cannot be written, is in use, is no such file, or is of other work.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], what: str) -> None:
        self._path = path
        self._what = what
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ModelError(f"Cannot open the state {path}: {error.strerror or error}.") from error
        try:
            self._lock()
            self._take_up({"format": _FORMAT, **identity})
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others open it."""
        os.close(self._descriptor)

    def entries(self) -> Iterator[Any]:
        """What was appended, in order.

        Raises:
            ModelError: a line is no JSON.
        """
        for line in self._lines():
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise self.foreign() from error
            yield entry

    def append(self, entry: Any) -> None:
        """Add a line.

        Raises:
            ModelError: the file cannot be written; it then ends with the line before.
        """
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError("the disk is full")
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise ModelError(f"Cannot write the state {self._path}: {error.strerror or error}.") from error

    def foreign(self) -> ModelError:
        """The error of a file that holds something else."""
        return _foreign(self._path, self._what)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ModelError(f"{self._path} is in use by another {self._what.partition(' ')[2]}.") from error

    def _take_up(self, identity: Mapping[str, Any]) -> None:
        with open(os.dup(self._descriptor), "rb") as file:
            first = file.readline()
            if not first.endswith(b"\n"):
                # Empty, or cut short before anything was done; what was never ours is not overwritten.
                if first and not first.startswith(_BEGIN):
                    raise self.foreign()
                os.ftruncate(self._descriptor, 0)
                self.append(identity)
                return
        self._check(first, identity)
        os.ftruncate(self._descriptor, len(first) + sum(map(len, self._lines())))

    def _lines(self) -> Iterator[bytes]:
        """Whole lines after the first."""
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            file.readline()
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield line

    def _check(self, line: bytes, identity: Mapping[str, Any]) -> None:
        try:
            found = json.loads(line)
            if not isinstance(found, dict) or "format" not in found:
                raise self.foreign()
        except ValueError as error:
            raise self.foreign() from error
        changed = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
        if changed:
            raise ModelError(
                f"{self._path} belongs to another {self._what.partition(' ')[2]}: {', '.join(changed)} changed since. "
                "Name another file, or remove this one to begin again."
            )


def _foreign(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is no state of {what}, or it is damaged. Name another file.")
