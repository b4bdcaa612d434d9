"""A profile of the served model, taken once while nobody asks for anything, in a process that gives way to others."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from tessera.app.settings import Settings
from tessera.models.cache import make_folder

logger = logging.getLogger(__name__)

_IDLE = 10.0  # seconds without a batch, after which it is taken
_LOOK = 0.2  # seconds; a process that is in the way gives way within so long
_MODULE = "tessera.app.figures.background_process"


class IdleProfile:
    """Takes the profile, unless the cache has it.

    The first batch that begins meanwhile ends it, and frees its memory; after the next pause it begins anew.

    Args:
        settings: How the model is loaded.
        target: Where the profile is kept.
        begun: How many batches have begun so far.
    """

    def __init__(self, settings: Settings, target: Path, begun: Callable[[], int]) -> None:
        self._settings = settings
        self._target = target
        self._begun = begun

    async def take(self) -> None:
        """Return when the profile is kept, or cannot be taken; the log says why then. Meant to be cancelled."""
        while not self._target.is_file():
            await self._pause()
            try:
                ended = await self._try()
            except Exception as error:
                ended = repr(error)
            if ended is not None:
                if ended:
                    logger.warning("the model could not be profiled: %s", ended)
                return

    async def _pause(self) -> None:
        """Wait until no batch has begun for a while."""
        seen = None
        while seen != (seen := self._begun()):
            await asyncio.sleep(_IDLE)

    async def _try(self) -> str | None:
        """Returns what went wrong, empty when nothing; None when it had to give way."""
        before = self._begun()
        make_folder(self._target.parent)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", _MODULE),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl+C is for the service, which ends it
        )
        assert process.stdin is not None
        assert process.stderr is not None
        saying = asyncio.create_task(process.stderr.read())
        try:
            process.stdin.write(_told(self._settings, self._target))
            while not saying.done():
                await asyncio.wait([saying], timeout=_LOOK)
                if self._begun() != before:
                    return None
            code = await process.wait()
            return (await saying).decode(errors="replace").strip()[-1000:] or f"exit code {code}" if code else ""
        finally:
            saying.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()


def _told(settings: Settings, target: Path) -> bytes:
    """One line for the process: all settings, so that it reads neither flags nor environment nor a file."""
    run = settings.model_dump(mode="json", include={"model_path", "models", "cache_dir", "backend", "threads"})
    return (json.dumps({"settings": run, "target": str(target)}) + "\n").encode()
