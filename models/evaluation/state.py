"""What survives an evaluation that is stopped: a file that grows by one line per block of photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tessera.models.evaluation.tally import Tally
from tessera.models.journal import Journal, check_journal

_WHAT = "an evaluation"
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
    check_journal(path, _WHAT)


class StateFile:
    """The file: a journal with a line per block. A context manager, as `Journal` is.

    Args:
        path: the file; created when missing.
        identity: what the results depend on, by name: JSON values. The same must be evaluated next time.
        variants: names of the variants.

    Raises:
        ModelError: it cannot be written, is in use, is no such file, or is of another evaluation.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], variants: Sequence[str]) -> None:
        self.done = Block.empty(variants)
        self._journal = Journal(path, identity, _WHAT)
        try:
            for entry in self._journal.entries():
                self.done.merge(self._block(entry, variants))
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> StateFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def append(self, block: Block) -> None:
        """Add the photos that follow.

        Raises:
            ModelError: the file cannot be written; it then ends with the block before.
        """
        self._journal.append(asdict(block))
        self.done.merge(block)

    def _block(self, entry: Any, variants: Sequence[str]) -> Block:
        try:
            return Block.from_json(entry, variants)
        except (ValueError, KeyError, TypeError) as error:
            raise self._journal.foreign() from error
