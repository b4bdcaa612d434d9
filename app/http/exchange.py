"""One request's exchange with the application, its answer written in one piece."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from tessera.app.api.handlers import error_response
from tessera.app.errors import RequestError
from tessera.app.protocol.request_id import HEADER, request_id_for

_VERSION = b"HTTP/1.1 "  # what every answer begins with
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # would end the header line, or the header


class Flow(FlowControl):
    """uvicorn's, which lets every exchange that listens for its client resume reading: not while requests wait."""

    holding = False
    ended = False  # whether the client has said that it sends nothing more

    def hold(self) -> None:
        """Read nothing until `holding` is taken back."""
        self.holding = True
        self.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless what has been read already waits, or there is nothing more."""
        if not self.holding and not self.ended:
            super().resume_reading()


class Exchange(RequestResponseCycle):
    """uvicorn's cycle, with the head of an answer sent together with its first bytes.

    Two writes are two system calls, and a client that is woken twice. What has no length yet gets one where the body
    comes whole; what comes in pieces is chunked.

    A HEAD request's answer is complete with its head, whatever the application sends after it. The protocol, not the
    exchange, closes the connection after its last answer.
    """

    _head: bytes | None = None  # waits for the body
    _begun = False

    def begin(self, connection: int) -> None:
        """Send the first bytes of the answer before the rest is there, to see what the client's end says to them.

        They go past the transport, which would send them later: what an end on this machine says is known at once.

        Args:
            connection: The descriptor of the connection.
        """
        if self.response_started or self.transport.get_write_buffer_size() > 0:
            return
        with suppress(OSError):  # there is no room, or no client; then nothing has been sent
            self._begun = os.write(connection, _VERSION) == len(_VERSION)
            self.waiting_for_100_continue = False

    async def send(self, message: Any) -> None:
        """Take an ASGI message of the application."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._begin(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.response_complete and self.scope["method"] == "HEAD":
            return
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            self._continue(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"the application sent {kind!r} out of turn")

    def _begin(self, status: int, headers: Any) -> None:
        lines = [STATUS_LINE[status].removeprefix(_VERSION) if self._begun else STATUS_LINE[status]]
        closes = False
        for name, value in (*self.default_headers, *headers):
            if _UNFIT.search(value):
                raise RuntimeError(f"the application's header {name!r} has characters that end it")
            if name == b"content-length":
                self.chunked_encoding, self.expected_content_length = False, int(value)
            elif name == b"connection" and value.lower() == b"close":
                self.keep_alive, closes = False, True
            lines += name, b": ", value, b"\r\n"
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if status in (204, 304):
            self.chunked_encoding, self.expected_content_length = False, 0
        self._head = b"".join(lines)
        self.response_started = True
        self.waiting_for_100_continue = False

    def _continue(self, body: bytes, more: bool) -> None:
        head, self._head = self._head, None
        if head is not None and self.chunked_encoding is None:
            self.chunked_encoding = more
            self.expected_content_length = len(body)
            head += b"transfer-encoding: chunked\r\n" if more else b"content-length: %d\r\n" % len(body)
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length, more = b"", 0, False
        elif self.chunked_encoding:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
            self.expected_content_length = 0
        else:
            self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (self.expected_content_length and not more):
            raise RuntimeError("the application's answer is not as long as its Content-Length says")
        self.transport.write(body if head is None else head + b"\r\n" + body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            self.on_response()


def refusal(error: RequestError) -> bytes:
    """The whole answer to what never became a request of the application; the connection ends with it."""
    identity = request_id_for(None)
    answer = error_response(error, identity)
    headers = [*answer.raw_headers, (HEADER.encode(), identity.encode()), (b"connection", b"close")]
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    return STATUS_LINE[answer.status_code] + head + b"\r\n" + bytes(answer.body)
