"""Signals that end a process: noted until the server can act on them, or ending a command in an orderly way.

A handler that raised during the imports before that would not be sure to end the process: an exception in a finaliser
is only printed, and one inside a native module's initialisation is an ImportError, or aborts.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_held: list[int] = []


def ending_signals() -> list[signal.Signals]:
    """Those that end this process in order: without SIGHUP where `nohup` has had it ignored."""
    return [sign for sign in ENDING if sign != signal.SIGHUP or signal.getsignal(sign) != signal.SIG_IGN]


def hold_signals() -> None:
    """Note them from now on; for the main thread."""
    for sign in ending_signals():
        signal.signal(sign, lambda sign, _: _held.append(sign))


def release_signals() -> None:
    """Raise again what was noted; for the main thread, when the server's own handlers stand."""
    while _held:
        signal.raise_signal(_held.pop())


@contextmanager
def orderly_end() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a command as Ctrl+C does, so that it tidies up; for the main thread.

    The exit code is 128 and the signal's number, as the shell counts. A second signal ends the process at once. What is
    ignored stays so, as under nohup.
    """
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGHUP)}
    for sign, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(sign, _end)
    try:
        yield
    finally:
        for sign, handler in before.items():
            if signal.getsignal(sign) == _end:  # a server has its own by now
                signal.signal(sign, handler)


@contextmanager
def deferred_end() -> Iterator[Callable[[], None]]:
    """Note the first signal inside the block, and act on it where the function is called that this gives.

    For loops that keep an account: an exception between two lines of it could count something twice, or not at all.
    """
    noted: list[int] = []
    before = {sign: signal.getsignal(sign) for sign in ENDING}

    def note(sign: int, frame: FrameType | None) -> None:
        signal.signal(sign, before[signal.Signals(sign)])  # a second signal means: do not wait
        noted.append(sign)

    def act() -> None:
        while noted:
            signal.raise_signal(noted.pop())

    for sign, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(sign, note)
    try:
        yield act
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
        act()


def _end(sign: int, frame: FrameType | None) -> None:
    signal.signal(sign, signal.SIG_DFL)
    raise SystemExit(128 + sign)
