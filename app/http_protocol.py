"""The connection's side of the contract: what is not valid HTTP is refused in its shape, and nobody may dawdle."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.handlers import error_response
from app.errors import InvalidHttpError, RequestError, TooManyConnectionsError
from app.protocol.request_id import HEADER, request_id_for

_LINGER = 1.0  # seconds
_REFUSING = 64  # connections that may be told of their refusal at once; more are closed without a word


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may do with connections.

    Attributes:
        connections: Most open at once.
        client_timeout: Seconds for a client to complete its headers, to finish a body that nobody reads, or to read on.
    """

    connections: int
    client_timeout: float


class HttpProtocol(H11Protocol):
    """uvicorn's parser, with refusals in the contract's shape that a client still sending can read, and time limits.

    uvicorn answers in plain text and closes at once; the kernel then resets the connection over what the client has
    sent meanwhile, which often destroys the answer on its way. Here the rest is read and dropped for a moment.

    uvicorn bounds only the time between requests, and stops counting at the first byte. Here the client's turn to send
    (headers, or the rest of a body after its answer) and its turn to read are bounded by a timer that bytes do not
    reset. While the application reads a body, the application's own limit holds.

    Args:
        limits: The limits.
        arguments: uvicorn's own.
    """

    def __init__(self, *, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._refused = False
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or refuse it when there are too many."""
        super().connection_made(cast(asyncio.Transport, transport))
        # With no room in our own buffer, `pause_writing` tells of every byte that the client does not take.
        self.transport.set_write_buffer_limits(high=0)
        surplus = len(self.connections) - self._limits.connections
        if surplus > _REFUSING:
            self.transport.abort()
        elif surplus > 0:
            message = f"More than {self._limits.connections} connections are open."
            self._refuse(TooManyConnectionsError(message, retry_after=1), b"Service Unavailable")
        else:
            self._await_bytes()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_sending_timer()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; after a refusal, drop it."""
        if not self._refused:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        super().on_response_complete()
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

    def send_400_response(self, msg: str) -> None:
        """Refuse what has arrived; `msg` is uvicorn's plain text and is not used."""
        if self.cycle is not None and not self.cycle.response_complete:
            # A body that broke off its encoding: the application sees a client that has left.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refuse(
            InvalidHttpError("The request is not valid HTTP, or its headers are too large."), reason=b"Bad Request"
        )

    def _refuse(self, error: RequestError, reason: bytes) -> None:
        self._refused = True
        self._stop_sending_timer()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        identity = request_id_for(None)
        answer = error_response(error, identity)
        head = h11.Response(
            status_code=answer.status_code,
            headers=[*answer.raw_headers, (HEADER.encode(), identity.encode()), (b"connection", b"close")],
            reason=reason,
        )
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.abort)

    def _watch(self) -> None:
        """Decide whose turn it is, and start or stop the client's time."""
        if self._refused or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_sending_timer()  # the application's turn
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._stop_sending_timer()
            if self.timeout_keep_alive_task is None:  # uvicorn stops it at every byte, starts it only after an answer
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        else:
            self._await_bytes()

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
