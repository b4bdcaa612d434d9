"""One keep-alive HTTP/1.1 connection of the load client: as little work per request as Python allows."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple, cast

LOST = 0  # as a status: the connection broke or was given up


class Answer(NamedTuple):
    """Status (0: none came), body, and when its last byte arrived on `time.perf_counter`."""

    status: int
    body: bytes
    arrived: float


class Connection(asyncio.Protocol):
    """Sends one request at a time; answers have a Content-Length or are chunked (RFC 9112)."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._finish(Answer(LOST, b"", time.perf_counter()))

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        status = int(head[9:12])
        body = _body(head, self._received, end + 4)
        if body is None:
            return
        self._received.clear()
        if b"\r\nconnection: close" in head:
            self.close()
        self._finish(Answer(status, body, time.perf_counter()))

    def request(self, message: bytes) -> asyncio.Future[Answer]:
        """Send a whole request; the future ends with its answer and never fails."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return self._waiting

    def close(self) -> None:
        """Leave at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, answer: Answer) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)
        self._waiting = None


async def connect(host: str, port: int) -> Connection | None:
    """A fresh connection, or None when the server takes none."""
    try:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    except OSError:
        return None
    return connection


def _body(head: bytes, received: bytearray, start: int) -> bytes | None:
    """The body once it is whole."""
    length = head.find(b"\r\ncontent-length:")
    if length >= 0:
        size = int(head[length + 17 :].split(b"\r\n", 1)[0])
        return bytes(received[start : start + size]) if len(received) >= start + size else None
    if b"\r\ntransfer-encoding: chunked" not in head:
        return b""
    if not received.endswith(b"0\r\n\r\n"):
        return None
    body, position = b"", start
    while True:
        line = received.index(b"\r\n", position)
        size = int(bytes(received[position:line]).split(b";")[0], 16)
        if size == 0:
            return body
        body += bytes(received[line + 2 : line + 2 + size])
        position = line + 4 + size
