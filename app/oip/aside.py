"""Long work on another thread, for a request that may be given up meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from tessera.app.oip.wire.datatypes import Proceed

Result = TypeVar("Result")


class _GivenUpError(Exception):
    """Ends work on a thread; never leaves this module."""


async def run_aside(work: Callable[[Proceed], Result]) -> Result:
    """Do `work` on another thread, away from the event loop.

    Args:
        work: Gets what it calls between its pieces. When this call has been cancelled, because the client left or the
            deadline passed, that ends the work there and then.
    """
    given_up = threading.Event()

    def proceed() -> None:
        if given_up.is_set():
            raise _GivenUpError

    try:
        return await asyncio.to_thread(work, proceed)
    finally:
        given_up.set()
