"""Gives the processes of a test a fault: magenta all over kills the engine process, and frontends trip over cyan.

Python imports this module at start when its folder is in PYTHONPATH; no real image is known to have such an effect.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

if any(argument.startswith("tessera-engine-") for argument in sys.orig_argv):
    from tessera.engine.backends.cpu.session import CpuSession

    def _poisoned(run: Callable[[CpuSession, Any], Any]) -> Callable[[CpuSession, Any], Any]:
        def run_or_die(session: CpuSession, x: Any) -> Any:
            if (x == (255, 0, 255)).all(axis=(1, 2, 3)).any():
                os.kill(os.getpid(), signal.SIGSEGV)
            return run(session, x)

        return run_or_die

    CpuSession.run = _poisoned(CpuSession.run)  # type: ignore[method-assign]

if any(argument.startswith("tessera-frontend-") for argument in sys.orig_argv):
    from PIL import Image

    from tessera.app.imaging import decoder

    def _tripping(let_go: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], Image.Image]:
        def let_go_or_trip(picture: Image.Image) -> Image.Image:
            assert picture.getpixel((0, 0)) != (0, 255, 255), "cyan"
            return let_go(picture)

        return let_go_or_trip

    decoder._let_go = _tripping(decoder._let_go)
