"""Bytes to requests: the parser with bounds, and what a head has to be (RFC 9112) beyond what the parser checks."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tessera.app.errors import InvalidHttpError, MethodNotAllowedError, RequestError

Headers = list[tuple[bytes, bytes]]

_MOST_HEAD = 64 * 1024  # bytes of a request's line and headers, trailers included
_PIECE = 4096  # bytes that are parsed at once, so that few requests of a connection are in memory as such
# A valid request line whose method llhttp does not know (RFC 9110, section 5.6.2).
_STRANGE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\r\n")
# Section 3.2.2; RFC 9110, section 4.2.4, has no user before the host.
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)([/?][^#]*)?", re.IGNORECASE)


class RefusedError(Exception):
    """Raised in a callback of the parser, which thereby ends with an error."""


class RequestReader(HttpToolsProtocol):
    """The half of a connection's protocol that feeds the parser and takes what it finds.

    llhttp bounds nothing. Here the bytes of a head are counted as it is parsed, and so are bytes that the parser takes
    and keeps to itself: of a header that does not end, or of a chunk's extension. Requests that have to wait for their
    turn wait as bytes.

    Args:
        arguments: uvicorn's own.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._held = b""
        self._partial = False  # some of a request has arrived, and not all of it
        self._head_bytes = 0
        self._in_head = False
        self._body_left = 0  # of the length that the request has declared
        self._restoring = False  # whether a new parser is being brought to where the one before was
        self._progress = False  # whether the parser has made something of what it was given
        self._silent_bytes = 0

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._restoring:
            return
        super().on_message_begin()
        self._head_bytes = 0
        self._partial = self._in_head = self._progress = True

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        if self._restoring:
            return
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is dropped: the application has had its headers."""
        if self._restoring:
            return
        self._count_head(len(name) + len(value) + 4)
        if self._in_head:
            super().on_header(name, value.rstrip(b" \t"))

    def on_body(self, body: bytes) -> None:
        """A piece of the body. Reading pauses after what came with it, not for a body that is complete by then."""
        self._progress = True
        self._body_left = max(0, self._body_left - len(body))
        if not self.cycle.response_complete:
            self.cycle.body += body
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._progress = True
        self._partial = False
        self._body_left = 0
        super().on_message_complete()

    @abstractmethod
    def _may_parse(self) -> bool:
        """Whether what arrives belongs to the request that is being answered, or to none yet."""

    def _is_restored(self) -> bool:
        """Note that a head is complete; returns whether that was only to restore the parser."""
        self._progress = True
        restored, self._restoring = self._restoring, False
        self._in_head = self._in_head and restored
        return restored

    def _parse(self, data: bytes) -> None:
        """Parse as far as the next request that has to wait for its turn, and keep the rest.

        Raises:
            HttpParserError: It is not HTTP/1.0 or 1.1, or too much of it.
        """
        rest = memoryview(data)
        while rest and self._may_parse():
            piece = rest[: max(_PIECE, self._body_left)]
            rest = rest[len(piece) :]
            self._progress = False
            self._feed(piece)
            self._silent_bytes = 0 if self._progress else self._silent_bytes + len(piece)
            if self._silent_bytes > _MOST_HEAD:
                raise httptools.HttpParserError("a line without end")
        self._held = bytes(rest)

    def _feed(self, data: memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # No other protocol is spoken here, so HTTP/1.1 goes on.
                data = data[upgrade.args[0] :]
                self._restore_body()

    def _restore_body(self) -> None:
        """Have the body parsed of a request that asks for another protocol: httptools takes it to have none.

        A new parser is told of the same framing, and what it makes of that head is not meant.
        """
        framing = [line for line in self.headers if line[0] in (b"content-length", b"transfer-encoding")]
        if not framing or self.cycle is None:
            return
        self.cycle.more_body = self._partial = self._restoring = True
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % line for line in framing) + b"\r\n")

    def _count_head(self, count: int) -> None:
        self._progress = True
        self._head_bytes += count
        if self._head_bytes > _MOST_HEAD:
            raise RefusedError


def is_framed(version: str, headers: Headers) -> bool:
    """Whether version, host and transfer coding are as sections 2.3, 3.2 and 6.1 have them.

    The parser takes an encoding before `chunked` and does not undo it.
    """
    hosts = sum(name == b"host" for name, _ in headers)
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    known = version in ("1.0", "1.1") and codings in ([], [b"chunked"])
    return known and (hosts == 1 or (hosts == 0 and version == "1.0"))


def split_target(target: bytes, headers: Headers) -> tuple[bytes, bytes] | None:
    """Path and query of a request's target; of an absolute one, which clients of a proxy send, the host too.

    Args:
        target: As the request line has it.
        headers: The request's headers; their host is replaced by the target's (section 3.2.2).

    Returns:
        Path and query; None for a URL that is not of this service's schemes, or has no host.
    """
    if b"://" in target and not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            return None
        headers[:] = [(name, absolute[1] if name == b"host" else value) for name, value in headers]
        target = absolute[2] or b"/"
        if target.startswith(b"?"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    return path, query


def declared_length(headers: Headers) -> int:
    """The bytes that a body will have, 0 where the request does not say."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        return 0
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def refusal_of(data: bytes, *, first: bool) -> RequestError:
    """Why `data` cannot be read.

    Args:
        data: What the parser ended with an error on.
        first: Whether the parser found fault with the method that they begin with.
    """
    if first and _STRANGE.match(data) is not None:
        return MethodNotAllowedError("No path here answers this method.", allow="GET, HEAD, POST")
    return invalid()


def invalid() -> RequestError:
    """The error of what is not HTTP."""
    return InvalidHttpError("The request is not valid HTTP, or its headers are too large.")
