"""A batch's output file: a journal while it runs, the table once it has ended, so that a run may stop anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tessera.app.commands.batch.sources import Photo
from tessera.app.commands.batch.tables import Row, check_format, write_table
from tessera.app.errors import StartupError
from tessera.engine.quantize.files import check_target, whole_file
from tessera.models.journal import Journal, check_journal

_WHAT = "a batch"


def check_output(path: Path, *, resume: bool) -> bool:
    """Find out before anything is built whether results can be written to a file.

    Returns:
        False where there is nothing left to do: the file is there, and no run is unfinished.

    Raises:
        StartupError: the suffix is unknown, or an unfinished run would be lost.
        ModelError: the place cannot be written.
    """
    check_format(path)
    check_target(path)
    journal = journal_of(path)
    check_journal(journal, _WHAT)
    if journal.exists() and not resume:
        raise StartupError(f"{journal} holds a run that has not ended: go on with --resume, or remove it.")
    return journal.exists() or not path.exists() or not resume


def journal_of(path: Path) -> Path:
    """Where results are kept until all are there."""
    return path.with_name(f"{path.name}.partial")


class BatchOutput:
    """Takes results by batches; a context manager.

    Args:
        path: the file that is to be.
        identity: all that results depend on besides the photos: JSON values by name.
        top_k: predictions per photo.

    Attributes:
        path: the file that is to be.
        journal: where results are until then.

    Raises:
        ModelError: it cannot be written, or an earlier run was of something else.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], top_k: int) -> None:
        self.path, self.journal = path, journal_of(path)
        self._top_k = top_k
        self._journal = Journal(self.journal, identity, _WHAT)

    def __enter__(self) -> BatchOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def skip(self, photos: Iterator[Photo]) -> tuple[int, int]:
        """Take those photos that an earlier run has done.

        Returns:
            How many these are, and how many of them could not be read.

        Raises:
            StartupError: they are others, or in another order.
        """
        kept = unreadable = 0
        for row in self._rows():
            photo = next(photos, None)
            if photo is None or photo.name != row["file"]:
                came = "nothing came" if photo is None else f"{photo.name} came"
                raise StartupError(
                    f"{self.journal} belongs to other photos: where it has {row['file']}, {came}. "
                    "Remove it to begin again."
                )
            kept += 1
            unreadable += "error" in row
        return kept, unreadable

    def append(self, rows: list[Row]) -> None:
        """Add a batch.

        Raises:
            ModelError: the disk is full, for example; what was added before stays.
        """
        self._journal.append(rows)

    def finish(self) -> None:
        """Write the table, whole or not at all.

        Raises:
            ModelError: it cannot be written.
        """
        with whole_file(self.path) as file:
            write_table(self._rows(), self._top_k, self.path, file)
        self.journal.unlink()

    def _rows(self) -> Iterator[Row]:
        for batch in self._journal.entries():
            if not isinstance(batch, list) or not all(isinstance(row, dict) and "file" in row for row in batch):
                raise self._journal.foreign()
            yield from batch
