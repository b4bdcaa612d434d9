"""The HTTP parser's side of the error contract: what is not valid HTTP never reaches the application."""

from __future__ import annotations

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.handlers import error_response
from app.errors import InvalidHttpError
from app.protocol.request_id import HEADER, request_id_for

_LINGER = 1.0  # seconds


class HttpProtocol(H11Protocol):
    """uvicorn's parser, with refusals in the contract's shape that a client still sending can read.

    uvicorn answers in plain text and closes at once; the kernel then resets the connection over what the client has
    sent meanwhile, which often destroys the answer on its way. Here the rest is read and dropped for a moment.
    """

    _refused = False

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; after a refusal, drop it."""
        if not self._refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse what has arrived; `msg` is uvicorn's plain text and is not used."""
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            # A body that broke off its encoding: the application sees a client that has left.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        identity = request_id_for(None)
        answer = error_response(
            InvalidHttpError("The request is not valid HTTP, or its headers are too large."), identity
        )
        head = h11.Response(
            status_code=answer.status_code,
            headers=[*answer.raw_headers, (HEADER.encode(), identity.encode()), (b"connection", b"close")],
            reason=b"Bad Request",
        )
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.close)
