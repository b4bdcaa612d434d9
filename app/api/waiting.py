"""An answer in time, for a client that is still there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio
from fastapi import Request

from tessera.app.api.body import wait_for_disconnect
from tessera.app.errors import ClientDisconnectedError, DeadlineExceededError

Result = TypeVar("Result")


async def answer_in_time(
    request: Request, work: Coroutine[Any, Any, Result], *, deadline: float, late: Callable[[], DeadlineExceededError]
) -> Result:
    """Do `work` in this task; give it up when the time is over or the client leaves.

    Args:
        request: The request, its whole body read.
        work: What to do; cancelled when it is given up.
        deadline: When the answer is worth nothing any more, on `time.perf_counter`.
        late: Makes the error of a time that is over.

    Raises:
        ClientDisconnectedError: The client has left.
        DeadlineExceededError: The time is over.
    """
    # The work begins at once and its end is this task's next step: no task of its own, which would cost a lone request
    # two rounds of the event loop.
    with anyio.CancelScope(deadline=anyio.current_time() + deadline - time.perf_counter()) as scope:
        gone = asyncio.ensure_future(wait_for_disconnect(request))
        gone.add_done_callback(lambda task: None if task.cancelled() else scope.cancel())
        try:
            return await work
        finally:
            gone.cancel()
    if gone.done() and not gone.cancelled():
        raise ClientDisconnectedError("The client left before the answer was ready.")
    raise late()
