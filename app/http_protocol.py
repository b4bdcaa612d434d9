"""The connection's side of the contract: what is not valid HTTP is refused in its shape, and nobody may dawdle."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.handlers import error_response
from app.errors import InvalidHttpError, MethodNotAllowedError, RequestError, TooManyConnectionsError
from app.http_response import Exchange
from app.protocol.request_id import HEADER, request_id_for

_LINGER = 1.0  # seconds
_REFUSING = 64  # connections that may be told of their refusal at once; more are closed without a word
_MOST_HEAD = 64 * 1024  # bytes of a request's line and headers, trailers included
_MOST_PIPELINED = 128  # requests of one connection that wait for their turn


# A valid request line whose method llhttp does not know (RFC 9110, section 5.6.2).
_STRANGE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\r\n")


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may do with connections.

    Attributes:
        connections: Most open at once.
        client_timeout: Seconds for a client to complete its headers, to finish a body that nobody reads, or to read on.
    """

    connections: int
    client_timeout: float


class _RefusedError(Exception):
    """Raised in a callback of the parser, which thereby ends with an error."""


class _Flow(FlowControl):
    """uvicorn's, which lets every exchange that listens for its client resume reading: not while requests wait."""

    holding = False

    def hold(self) -> None:
        """Read nothing until `holding` is taken back."""
        self.holding = True
        self.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless what has been read already waits."""
        if not self.holding:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol around llhttp, with refusals that a client still sending can read, and limits.

    uvicorn answers in plain text and closes at once; the kernel then resets the connection over what the client has
    sent meanwhile, which often destroys the answer on its way. Here the rest is read and dropped for a moment. What is
    wrong with a pipelined request is said in its turn, after the answers to those before it.

    uvicorn bounds only the time between requests, and stops counting at the first byte. Here the client's turn to send
    (headers, or the rest of a body after its answer) and its turn to read are bounded by a timer that bytes do not
    reset. While the application reads a body, the application's own limit holds.

    llhttp bounds nothing. Here the bytes of a head are counted as it is parsed, and so are bytes that the parser takes
    and keeps to itself: of a header that does not end, or of a chunk's extension.

    Args:
        limits: The limits.
        arguments: uvicorn's own.
    """

    def __init__(self, *, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._refused = False
        self._broken: RequestError | None = None  # what is wrong after the requests that are being answered
        self._held = b""
        self._partial = False  # some of a request has arrived, and not all of it
        self._head_bytes = 0
        self._in_head = False
        self._restoring = False  # whether a new parser is being brought to where the one before was
        self._progress = False  # whether the parser has made something of what it was given
        self._silent_bytes = 0
        self._answering: Exchange | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or refuse it when there are too many."""
        super().connection_made(cast(asyncio.Transport, transport))
        self.flow: _Flow = _Flow(self.transport)
        # With no room in our own buffer, `pause_writing` tells of every byte that the client does not take.
        self.transport.set_write_buffer_limits(high=0)
        surplus = len(self.connections) - self._limits.connections
        if surplus > _REFUSING:
            self.transport.abort()
        elif surplus > 0:
            message = f"More than {self._limits.connections} connections are open."
            self._refuse(TooManyConnectionsError(message, retry_after=1))
        else:
            self._await_bytes()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_sending_timer()
        self._stop_reading_timer()
        if self._answering is not None and not self._answering.response_complete:
            _leave(self._answering)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; after a refusal, drop it. What is pipelined waits unparsed for its turn."""
        if self._refused:
            return
        if self._broken or (self._is_answering() and not self._partial):
            self._held += b"" if self._broken else data
            self.flow.hold()
            return
        self._unset_keepalive_if_required()
        self._partial = True
        self._progress = False
        before = self.cycle
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            strange = isinstance(error, httptools.HttpParserInvalidMethodError) and self.cycle is before
            strange = strange and _STRANGE.match(data) is not None
            self._break_off(_strange_method() if strange else _invalid())
            return
        # After the answer nobody would resume reading, and what is left of a refused body has to pass.
        if self._partial and self._is_answering() and len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self._watch()

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

    def on_headers_complete(self) -> None:
        """Begin the exchange, or have it wait for those before it."""
        self._progress = True
        if self._restoring:
            self._restoring = False
            return
        self._in_head = False
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        # RFC 9112, sections 2.3, 3.2 and 6.1; the parser takes an encoding before `chunked` and does not undo it.
        if (
            version not in ("1.0", "1.1")
            or hosts > 1
            or (hosts == 0 and version == "1.1")
            or codings not in ([], [b"chunked"])
        ):
            raise _RefusedError
        path, _, query = self.url.partition(b"?")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["path"] = unquote(path.decode("ascii"))
        self.scope["raw_path"] = path
        self.scope["query_string"] = query
        before = self._answering
        self.cycle = exchange = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(exchange, self.app)
        elif len(self.pipeline) < _MOST_PIPELINED:
            self.flow.hold()
            self.pipeline.appendleft((exchange, self.app))
        else:
            raise _RefusedError

    def on_body(self, body: bytes) -> None:
        """A piece of the body. Reading pauses after what came with it, not for a body that is complete by then."""
        self._progress = True
        if not self.cycle.response_complete:
            self.cycle.body += body
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._progress = True
        self._partial = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.flow.holding = bool(self._held) or len(self.pipeline) > 1
        super().on_response_complete()
        if self._is_answering():
            return  # the next of several that arrived together
        if self._broken is not None:
            self._refuse(self._broken)
        elif self._held and not self.transport.is_closing():
            held, self._held = self._held, b""
            self.flow.holding = False
            self.data_received(held)
            self.flow.resume_reading()
        else:
            self._watch()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        if self._reading is None:
            self._reading = self.loop.call_later(self._limits.client_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read everything."""
        self._stop_reading_timer()
        super().resume_writing()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _parse(self, data: bytes) -> None:
        """Feed the parser.

        Raises:
            HttpParserError: It is not HTTP/1.0 or 1.1, or too much of it.
        """
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # No other protocol is spoken here, so HTTP/1.1 goes on.
                rest = rest[upgrade.args[0] :]
                self._restore_body()
        self._silent_bytes = 0 if self._progress else self._silent_bytes + len(data)
        if self._silent_bytes > _MOST_HEAD:
            raise httptools.HttpParserError("a line without end")

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
            raise _RefusedError

    def _break_off(self, error: RequestError) -> None:
        """What has arrived cannot be parsed on: say why when its turn comes."""
        exchange = cast(Exchange | None, self.cycle)
        if exchange is not None and exchange.more_body:
            if exchange.response_complete:
                self.transport.close()
                return
            # A body that broke off its encoding: the application sees a client that has left.
            _leave(exchange)
            self.pipeline = type(self.pipeline)(entry for entry in self.pipeline if entry[0] is not exchange)
            if exchange is self._answering:
                self._refuse(error)
                return
        if self._is_answering():
            self._broken = error
            self._stop_sending_timer()
        else:
            self._refuse(error)

    def _refuse(self, error: RequestError) -> None:
        self._refused = True
        self._stop_sending_timer()
        self._unset_keepalive_if_required()
        if self._answering is not None and self._answering.response_started and self._is_answering():
            self.transport.close()
            return
        identity = request_id_for(None)
        answer = error_response(error, identity)
        headers = [*answer.raw_headers, (HEADER.encode(), identity.encode()), (b"connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[answer.status_code] + head + b"\r\n" + bytes(answer.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.abort)

    def _watch(self) -> None:
        """Decide whose turn it is, and start or stop the client's time."""
        if self._refused or self.transport.is_closing():
            return
        if self._is_answering():
            self._stop_sending_timer()  # the application's turn
        elif self._partial:
            self._unset_keepalive_if_required()
            self._await_bytes()
        else:
            self._stop_sending_timer()
            if self.timeout_keep_alive_task is None:  # uvicorn stops it at every byte, starts it only after an answer
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def _await_bytes(self) -> None:
        if self._sending is None:
            self._sending = self.loop.call_later(self._limits.client_timeout, self.transport.abort)

    def _stop_sending_timer(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _stop_reading_timer(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def _invalid() -> RequestError:
    return InvalidHttpError("The request is not valid HTTP, or its headers are too large.")


def _strange_method() -> RequestError:
    return MethodNotAllowedError("No path here answers this method.", allow="GET, POST")


def _leave(exchange: Exchange) -> None:
    """Let the application see a client that has left."""
    exchange.disconnected = True
    exchange.message_event.set()
