"""How far a batch is: what is done, how fast, how long it will take, and what could not be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Thread

from tessera.app.commands.batch.running import Outcome, Unreadable
from tessera.app.commands.batch.sources import count_photos
from tessera.wording import counted


class Tally:
    """Counts outcomes as they pass.

    Args:
        say: tells a line.
        kept: photos that an earlier run has done.
        unreadable: those of them that could not be read.

    Attributes:
        photos: done so far, with those of the earlier run.
        unreadable: those that could not be read.
    """

    def __init__(self, say: Callable[[str], None], kept: int = 0, unreadable: int = 0) -> None:
        self._say = say
        self._kept = kept
        self._total: int | None = None
        self._show: Callable[[str, float, str], None] | None = None
        self._started = time.perf_counter()
        self.photos, self.unreadable = kept, unreadable

    def draw(self, show: Callable[[str, float, str], None], sources: Sequence[Path]) -> None:
        """Show how far it is from now on; counting what there is goes on beside it."""
        self._show = show
        Thread(target=self._count, args=(sources,), daemon=True, name="tessera-count").start()

    def watch(self, batches: Iterator[list[Outcome]]) -> Iterator[list[Outcome]]:
        """The same batches; photos that cannot be read are told before, progress behind each."""
        for batch in batches:
            for outcome in batch:
                if isinstance(outcome, Unreadable):
                    self.unreadable += 1
                    self._say(f"tessera: {outcome.filename}: {outcome.reason}")
            yield batch
            self.photos += len(batch)
            if self._show is not None:
                self._show("classifying", self.photos / self._total if self._total else 0.0, self._detail())

    def __str__(self) -> str:
        left_out = f"; {self.unreadable:,} could not be read" if self.unreadable else ""
        return f"{counted(self.photos, 'photo', form=',')}, {self._rate():.1f}/s{left_out}"

    def _rate(self) -> float:
        """Photos per second of this run."""
        return (self.photos - self._kept) / max(time.perf_counter() - self._started, 1e-9)

    def _detail(self) -> str:
        rate = self._rate()
        if self._total is None or not rate:
            return f"{counted(self.photos, 'photo', form=',')}, {rate:.1f}/s"
        left = timedelta(seconds=round(max(0, self._total - self.photos) / rate))
        return f"{self.photos:,} of {counted(self._total, 'photo', form=',')}, {rate:.1f}/s, {left} left"

    def _count(self, sources: Sequence[Path]) -> None:
        self._total = count_photos(sources)
