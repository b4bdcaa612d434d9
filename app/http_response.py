"""One request's exchange with the application, its answer written in one piece."""

from __future__ import annotations

import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # would end the header line, or the header


class Exchange(RequestResponseCycle):
    """uvicorn's cycle, with the head of an answer sent together with its first bytes.

    Two writes are two system calls, and a client that is woken twice. What has no length yet gets one where the body
    comes whole; what comes in pieces is chunked.
    """

    _head: bytes | None = None  # waits for the body

    async def send(self, message: Any) -> None:
        """Take an ASGI message of the application."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._begin(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            self._continue(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"the application sent {kind!r} out of turn")

    def _begin(self, status: int, headers: Any) -> None:
        lines = [STATUS_LINE[status]]
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
            body, self.expected_content_length = b"", 0
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
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
