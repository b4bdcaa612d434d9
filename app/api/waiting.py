"""An answer in time, for a client that is still there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from app.api.body import wait_for_disconnect
from app.errors import ClientDisconnectedError, DeadlineExceededError

Result = TypeVar("Result")


async def answer_in_time(
    request: Request, work: Coroutine[Any, Any, Result], *, deadline: float, late: Callable[[], DeadlineExceededError]
) -> Result:
    """Do `work`; give it up when the time is over or the client leaves.

    Args:
        request: The request, its whole body read.
        work: What to do; cancelled when it is given up.
        deadline: When the answer is worth nothing any more, on `time.perf_counter`.
        late: Makes the error of a time that is over.

    Raises:
        ClientDisconnectedError: The client has left.
        DeadlineExceededError: The time is over.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(wait_for_disconnect(request))
    try:
        await asyncio.wait({task, gone}, timeout=deadline - time.perf_counter(), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnectedError("The client left before the answer was ready.")
        raise late()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
