"""Progress of building and loading, on standard error: a bar on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import logging
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

logger = logging.getLogger(__name__)


class _Console(Console):
    """rich's, which ends the process when the reader of its output leaves."""

    def on_broken_pipe(self) -> None:
        """Be silent from now on."""
        self.quiet = True


class ProgressDisplay:
    """Shows (stage, fraction) reports from any thread; a context manager that removes the bar when it is left.

    Args:
        as_log: Write a log line per stage and nothing else, for standard errors that programs read.
    """

    def __init__(self, *, as_log: bool = False) -> None:
        self._as_log = as_log
        self._console = _Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=as_log or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._stage = ""

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar; harmless when it is gone."""
        with suppress(OSError):  # a terminal that has hung up
            self._bar.stop()

    @property
    def is_drawn(self) -> bool:
        """Whether there is a bar: on a terminal, unless programs read it."""
        return not self._bar.disable

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None:
        """Show that `stage` has come to `fraction` (0 to 1); `detail` is for the bar alone."""
        if stage != self._stage:
            self._stage = stage
            self._bar.reset(self._task)  # a stage that came to its end has stopped the clock
            if self._as_log:
                logger.info("loading", extra={"fields": {"stage": stage}})
            elif not self._console.is_terminal:
                with suppress(OSError):
                    self._console.print(f"tessera: {stage}", markup=False, highlight=False, soft_wrap=True)
        self._bar.update(self._task, description=f"{stage}: {detail}" if detail else stage, completed=fraction)
