"""A request's body, bounded while it streams in."""

from __future__ import annotations

import asyncio
import sys
import time

from fastapi import Request

from app.errors import BodyTimeoutError, BodyTooLargeError, ClientDisconnectedError, EmptyBodyError
from app.limits.uploads import Upload
from app.observability import tracing


async def read_body(request: Request, *, limit: int, timeout: float, may_be_empty: bool = False) -> bytes:
    """Read the whole body.

    Args:
        request: The request, its body not yet touched.
        limit: Most bytes; one more and reading stops. A larger Content-Length is refused before anything is read.
        timeout: Longest time for all of it, in seconds.
        may_be_empty: Whether a request without a body is fine.

    Raises:
        EmptyBodyError: There is no body.
        BodyTooLargeError: It is over the limit.
        TooManyUploadsError: It is more than all uploads together may hold.
        BodyTimeoutError: It did not arrive in time.
        ClientDisconnectedError: The client left before it was complete.
    """
    started = time.perf_counter()
    try:
        body = await _collect_within(request, limit, timeout)
    except asyncio.TimeoutError:
        raise BodyTimeoutError(f"The body did not arrive within {timeout:.1f} s.") from None
    tracing.stage("read body", started, time.perf_counter(), bytes=len(body))
    if not body and not may_be_empty:
        raise EmptyBodyError("The body is empty; send one image, or a form with images in parts named 'file'.")
    return body


async def _collect_within(request: Request, limit: int, timeout: float) -> bytes:
    if sys.version_info >= (3, 11):  # without a task of its own
        async with asyncio.timeout(timeout):
            return await _collect(request, limit)
    return await asyncio.wait_for(_collect(request, limit), timeout)


async def _collect(request: Request, limit: int) -> bytes:
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
    return bytes(body)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than the limit of {limit} bytes.")


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client has left; call it only after the whole body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
