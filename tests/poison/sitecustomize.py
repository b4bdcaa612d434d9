"""Gives the engine process of a test a native fault: an image that is magenta all over kills it.

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
