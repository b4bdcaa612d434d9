"""SIGTERM and SIGINT, noted until the server can act on them.

A handler that raised during the imports before that would not be sure to end the process: an exception in a finaliser
is only printed, and one inside a native module's initialisation is an ImportError, or aborts.
"""

from __future__ import annotations

import signal

ENDING = (signal.SIGTERM, signal.SIGINT)

_held: list[int] = []


def hold_signals() -> None:
    """Note them from now on; for the main thread."""
    for sign in ENDING:
        signal.signal(sign, lambda sign, _: _held.append(sign))


def release_signals() -> None:
    """Raise again what was noted; for the main thread, when the server's own handlers stand."""
    while _held:
        signal.raise_signal(_held.pop())
