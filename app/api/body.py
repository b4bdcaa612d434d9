"""A request's body, bounded while it streams in."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
from fastapi import Request

from tessera.app.errors import BodyTimeoutError, BodyTooLargeError, ClientDisconnectedError, EmptyBodyError
from tessera.app.limits.uploads import Upload
from tessera.app.observability import tracing
from tessera.wording import counted

LEAST_RATE = 1024  # bytes per second, over the whole body, that a client has to send after its first moments


async def read_body(
    request: Request, *, limit: int, timeout: float, patience: float, may_be_empty: bool = False
) -> bytes:
    """Read the whole body.

    Args:
        request: The request, its body not yet touched.
        limit: Most bytes; one more and reading stops. A larger Content-Length is refused before anything is read.
        timeout: Longest time for all of it, in seconds.
        patience: How long it may be behind the least rate, in seconds.
        may_be_empty: Whether a request without a body is fine.

    Raises:
        EmptyBodyError: There is no body.
        BodyTooLargeError: It is over the limit.
        TooManyUploadsError: It is more than all uploads together may hold.
        BodyTimeoutError: It did not arrive in time, or comes more slowly than anybody's line.
        ClientDisconnectedError: The client left before it was complete.
    """
    started = time.perf_counter()
    begun = anyio.current_time()
    body = None
    with anyio.CancelScope(deadline=begun + min(timeout, patience)) as scope:

        def allow(size: int) -> None:
            scope.deadline = begun + min(timeout, patience + size / LEAST_RATE)

        body = await _collect(request, limit, allow)
    if body is None:
        slow = anyio.current_time() < begun + timeout
        raise BodyTimeoutError(
            f"The body comes at less than {LEAST_RATE} bytes per second."
            if slow
            else f"The body did not arrive within {timeout:.1f} s."
        )
    tracing.stage("read body", started, time.perf_counter(), bytes=len(body))
    if not body and not may_be_empty:
        raise EmptyBodyError("The body is empty; send one image, or a form with images in parts named 'file'.")
    return body


async def _collect(request: Request, limit: int, arrived: Callable[[int], None]) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    # Counted as it arrives: who only announces a large body holds nothing that others could use.
    share: Upload = request.state.upload
    body = bytearray()  # one piece: as objects of their own, chunks of a byte would take forty times their size
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError("The client left before its body was complete.")
        chunk: bytes = message.get("body", b"")
        if len(body) + len(chunk) > limit:
            raise _too_large(limit)
        share.grow(len(body) + len(chunk))
        more = message.get("more_body", False)
        if not (body or more):
            return chunk  # all of it at once, as most come
        body += chunk
        if more:
            arrived(len(body))
    return bytes(body)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than the limit of {counted(limit, 'byte')}.")


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client has left; call it only after the whole body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
