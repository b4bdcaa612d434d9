"""Holds up a server of a test: while the file that HELD_WHILE names exists, no model is loaded and no batch is made.

Python imports this module at start when its folder is in PYTHONPATH. Requests are admitted and queued.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "serve" in sys.orig_argv or any(argument.startswith("tessera-engine-") for argument in sys.orig_argv):
    from tessera.app.dispatch import executor
    from tessera.app.scheduling.queue import ImageQueue
    from tessera.app.scheduling.scheduler import Scheduler

    HELD = Path(os.environ["HELD_WHILE"])
    LOOK_AGAIN = 0.01

    def _held_batches(take: Callable[[ImageQueue], Any]) -> Callable[[ImageQueue], Any]:
        return lambda queue: None if HELD.exists() else take(queue)

    def _held_loading(load: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_load(*arguments: Any) -> Any:
            while HELD.exists():
                time.sleep(LOOK_AGAIN)
            return load(*arguments)

        return wait_and_load

    ImageQueue.take = _held_batches(ImageQueue.take)  # type: ignore[method-assign]
    Scheduler._pause = lambda scheduler: LOOK_AGAIN  # type: ignore[method-assign]  # it is not told of the file
    executor.load = _held_loading(executor.load)
