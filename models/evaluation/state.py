"""What survives an evaluation that is stopped: a file that grows by one line per block of photos."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tessera.engine.errors import ModelError
from tessera.engine.quantize.files import check_target
from tessera.models.evaluation.tally import Tally

_FORMAT = 1
_BEGIN = b'{"format":'
# Unreadable photos that a result names; all are counted.
MOST_NAMED = 100


@dataclass
class Block:
    """Results of some photos in a row.

    Attributes:
        photos: how many, those that could not be read included.
        tallies: counts by variant.
        unreadable: how many could not be read.
        named: paths of the first of these.
        seconds: time spent.
    """

    photos: int
    tallies: dict[str, Tally]
    unreadable: int = 0
    named: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def empty(cls, variants: Sequence[str]) -> Block:
        """No photos yet."""
        return cls(0, {name: Tally() for name in variants})

    def merge(self, other: Block) -> None:
        """Add the photos that follow."""
        self.photos += other.photos
        self.unreadable += other.unreadable
        self.named = (self.named + other.named)[:MOST_NAMED]
        self.seconds += other.seconds
        for name, tally in other.tallies.items():
            self.tallies[name].merge(tally)

    @classmethod
    def from_json(cls, table: Mapping[str, Any], variants: Sequence[str]) -> Block:
        """What `asdict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        tallies = {name: Tally.from_json(table["tallies"][name]) for name in variants}
        named = [str(name) for name in table["named"]]
        return cls(int(table["photos"]), tallies, int(table["unreadable"]), named, float(table["seconds"]))


def check_state(path: Path) -> None:
    """Find out before anything is loaded whether a file can keep the state of an evaluation.

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
        raise _foreign(path)


class StateFile:
    """The file: a first line that says what is evaluated, then one line per block, each written whole or not at all.

    A context manager; while it is open no other process can open it. A line that a crash cut short is removed.

    Args:
        path: the file; created when missing.
        identity: what the results depend on, by name: JSON values. The same must be evaluated next time.
        variants: names of the variants.

    Raises:
        ModelError: it cannot be written, is in use, is no such file, or is of another evaluation.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], variants: Sequence[str]) -> None:
        self._path = path
        self.done = Block.empty(variants)
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ModelError(f"Cannot open the state {path}: {error.strerror or error}.") from error
        try:
            self._lock()
            self._read({"format": _FORMAT, **identity}, variants)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> StateFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def append(self, block: Block) -> None:
        """Add the photos that follow.

        Raises:
            ModelError: the file cannot be written; it then ends with the block before.
        """
        self._write(asdict(block))
        self.done.merge(block)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ModelError(f"{self._path} is in use by another evaluation.") from error

    def _read(self, identity: Mapping[str, Any], variants: Sequence[str]) -> None:
        with open(os.dup(self._descriptor), "rb") as file:
            first = file.readline()
            if not first.endswith(b"\n"):
                # Empty, or cut short before anything was evaluated; what was never ours is not overwritten.
                if first and not first.startswith(_BEGIN):
                    raise _foreign(self._path)
                os.ftruncate(self._descriptor, 0)
                self._write(identity)
                return
            self._check(first, identity)
            end = len(first)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self.done.merge(Block.from_json(json.loads(line), variants))
                except (ValueError, KeyError, TypeError) as error:
                    raise _foreign(self._path) from error
                end += len(line)
        os.ftruncate(self._descriptor, end)

    def _check(self, line: bytes, identity: Mapping[str, Any]) -> None:
        try:
            found = json.loads(line)
            if not isinstance(found, dict) or "format" not in found:
                raise _foreign(self._path)
        except ValueError as error:
            raise _foreign(self._path) from error
        changed = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
        if changed:
            raise ModelError(
                f"{self._path} belongs to another evaluation: {', '.join(changed)} changed since. "
                "Name another file with --resume, or remove this one to begin again."
            )

    def _write(self, table: Mapping[str, Any]) -> None:
        line = json.dumps(table, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError("the disk is full")
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise ModelError(f"Cannot write the state {self._path}: {error.strerror or error}.") from error


def _foreign(path: Path) -> ModelError:
    return ModelError(f"{path} is no state of an evaluation, or it is damaged. Name another file.")
