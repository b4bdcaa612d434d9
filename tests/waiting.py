"""Waiting for what is bound to happen, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

NEVER = 400.0  # seconds after which something has failed rather than taken long; pytest gives up after 600


def until(condition: Callable[[], bool], pause: float = 0.02) -> None:
    """Wait for something that is bound to happen, looking every `pause` seconds."""
    deadline = time.monotonic() + NEVER
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(pause)
