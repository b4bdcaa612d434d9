"""The connection's side of the contract: what is not valid HTTP is refused in its shape, and no client may dawdle."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from tessera.app.api.context import PROBES
from tessera.app.errors import RequestError, TooManyConnectionsError
from tessera.app.http.exchange import Exchange, Flow, refusal
from tessera.app.http.requests import (
    RefusedError,
    RequestReader,
    declared_length,
    invalid,
    is_framed,
    refusal_of,
    split_target,
)
from tessera.app.limits.clients import client_key
from tessera.app.limits.connections import ConnectionTable, Place

_LINGER = 1.0  # seconds
_LOOK = 0.02  # seconds between looks whether a client that sends nothing more is still there
_PROGRESS = 1024  # bytes that count as progress of a client which sends a body


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may do with connections.

    Attributes:
        table: Who may be connected.
        client_timeout: Seconds for a client to complete its headers, to finish a body that is not read, or to read on.
    """

    table: ConnectionTable
    client_timeout: float


class HttpProtocol(RequestReader):
    """uvicorn's protocol around llhttp, with refusals that a client still sending can read, and limits.

    uvicorn answers in plain text and closes at once; the kernel then resets the connection over what the client has
    sent meanwhile, which often destroys the answer on its way. Here the rest is read and dropped for a moment. What is
    wrong with a pipelined request is said in its turn, after the answers to those before it.

    uvicorn bounds only the time between requests, and stops counting at the first byte. Here the client's turn to send
    (headers, or the rest of a body after its answer) and its turn to read are bounded by a timer that bytes do not
    reset. While the application reads a body, the application's own limit holds. Whose turn it is the connection tells
    the table, which closes those that wait for their client when others need the place.

    A client may close its sending side and still be answered. One that has closed altogether looks the same until
    something is sent to it, so it is sent the first bytes of its answer early.

    Args:
        limits: The limits.
        arguments: uvicorn's own.
    """

    def __init__(self, *, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._table = limits.table
        self._place: Place | None = None  # None when there was none
        self._refused = False
        self._reason: RequestError | None = None  # why a callback refused
        self._broken: RequestError | None = None  # what is wrong after the requests that are being answered
        self._answering: Exchange | None = None
        self._waits = True  # for the client
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or close it when there is no place at all."""
        super().connection_made(cast(asyncio.Transport, transport))
        self.flow: Flow = Flow(self.transport)
        # With no room in our own buffer, `pause_writing` tells of every byte that the client does not take.
        self.transport.set_write_buffer_limits(high=0)
        client = "" if self.client is None else client_key(self.client[0])
        self._place = self._table.enter(self, client, self._socket().fileno())
        if self._place is None:
            self.transport.abort()
        else:
            self._await_bytes()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timers()
        if self._place is not None:
            self._table.leave(self._place)
        if self._answering is not None and not self._answering.response_complete:
            _leave(self._answering)
        super().connection_lost(exc)

    def displace(self, *, linger: bool) -> None:
        """Close, because another connection needs the place; with a word about it where a request has begun."""
        if self._refused or not (self._in_head or self._answering is None or self._is_answering()):
            self._hang_up(linger=False)
            return
        if self._answering is not None:
            _leave(self._answering)
        self._refuse(self._no_place(), linger=linger)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; after a refusal, drop it. What is pipelined waits unparsed for its turn."""
        if self._refused:
            return
        if self._broken or not self._may_parse():
            self._held += b"" if self._broken else data
            self.flow.hold()
            return
        self._unset_keepalive_if_required()
        self._partial = True
        before = self.cycle
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            first = isinstance(error, httptools.HttpParserInvalidMethodError) and self.cycle is before
            self._break_off(self._reason or refusal_of(data, first=first))
            return
        if self._held:
            self.flow.hold()
        # After the answer nothing would resume reading, and what is left of a refused body has to pass.
        if self._partial and self._is_answering() and len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self._watch(len(data))

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's never stays open
        """The client sends nothing more; it still gets the answers to what it has sent whole."""
        if self._refused or self.flow.ended:
            return False
        self.flow.ended = True
        exchange = cast(Exchange | None, self.cycle)
        if self._in_head or (exchange is not None and exchange.more_body):
            self._break_off(invalid())
        if exchange is None or self._refused or not self._is_answering():
            return False
        exchange.keep_alive = exchange.keep_alive and self._broken is not None
        cast(Exchange, self._answering).begin(self._socket().fileno())
        if self._is_gone():
            return False
        self.loop.call_later(_LOOK, self._look_for_client)
        return True

    def on_headers_complete(self) -> None:
        """Begin the exchange, or have it wait for those before it."""
        if self._is_restored():
            return
        version = self.parser.get_http_version()
        target = split_target(self.url, self.headers)
        if target is None or not is_framed(version, self.headers):
            raise RefusedError
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["raw_path"], self.scope["query_string"] = target
        self.scope["path"] = unquote(target[0].decode("ascii"))
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        if self._place is not None and self._place.reserved:
            if self.scope["path"] in PROBES and self.scope["method"] in ("GET", "HEAD"):
                keep_alive = False
            elif not self._table.promote(self._place):
                self._reason = self._no_place()
                raise RefusedError
        self._body_left = declared_length(self.headers)
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
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.pipeline.appendleft((exchange, self.app))

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        answered = cast(Exchange, self._answering)
        if not answered.keep_alive:
            self.server_state.total_requests += 1
            self._hang_up(linger=answered.more_body or bool(self._held))
            return
        self.flow.holding = bool(self._held) or len(self.pipeline) > 1
        super().on_response_complete()
        if self._broken is not None and not self._is_answering():
            self._refuse(self._broken)
        elif self._held and self._may_parse() and not self.transport.is_closing():
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
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        super().resume_writing()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _may_parse(self) -> bool:
        return self._answering is None or self._answering.response_complete or self._answering.more_body

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

    def _refuse(self, error: RequestError, *, linger: bool = True) -> None:
        if self._answering is not None and self._answering.response_started and self._is_answering():
            self._hang_up(linger=False)
            return
        self.transport.write(refusal(error))
        self._hang_up(linger=linger)

    def _hang_up(self, *, linger: bool) -> None:
        """Close; with `linger` a moment later, as what the client still sends would destroy the last answer."""
        self._refused = True
        self._stop_sending_timer()
        self._unset_keepalive_if_required()
        if not linger or self.flow.ended or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.flow.holding = False
        self.flow.resume_reading()
        self.transport.write_eof()
        self._wait(True)
        self.loop.call_later(_LINGER, self.transport.abort)

    def _no_place(self) -> RequestError:
        return TooManyConnectionsError(f"More than {self._table.limit} connections are open.", retry_after=1)

    def _watch(self, brought: int = 0) -> None:
        """Decide whose turn it is, and start or stop the client's time.

        Args:
            brought: How many bytes the client has just sent.
        """
        if self._refused or self.transport.is_closing():
            return
        waits = self._may_parse()
        if waits != self._waits or (waits and brought >= _PROGRESS):
            self._wait(waits)
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

    def _wait(self, waits: bool) -> None:
        self._waits = waits
        if self._place is not None:
            (self._table.waits if waits else self._table.works)(self._place)

    def _look_for_client(self) -> None:
        """Notice a client that has closed altogether, though it seemed to only send nothing more."""
        if self.transport.is_closing() or not self._is_answering():
            return
        if self._is_gone():
            self.transport.abort()
        else:
            self.loop.call_later(_LOOK, self._look_for_client)

    def _is_gone(self) -> bool:
        """Whether the client's end has refused what it was sent."""
        return self._socket().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def _socket(self) -> socket.socket:
        return cast(socket.socket, self.transport.get_extra_info("socket"))

    def _await_bytes(self) -> None:
        if self._sending is None:
            self._sending = self.loop.call_later(self._limits.client_timeout, self._out_of_time)

    def _out_of_time(self) -> None:
        if self._place is not None and self._place.reserved:
            self._refuse(self._no_place())
        else:
            self.transport.abort()

    def _stop_sending_timer(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _stop_timers(self) -> None:
        self._stop_sending_timer()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def _leave(exchange: Exchange) -> None:
    """Let the application see a client that has left."""
    exchange.disconnected = True
    exchange.message_event.set()
