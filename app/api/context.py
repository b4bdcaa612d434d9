"""What every route may ask for, and the middleware around all of them."""

from __future__ import annotations

import logging
import time
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.handlers import error_response
from app.errors import InternalError
from app.observability.logs import request_id
from app.protocol.request_id import HEADER, request_id_for
from app.service import Service

access_log = logging.getLogger("app.access")
logger = logging.getLogger(__name__)

_PROBES = ("/healthz", "/readyz", "/metrics")  # machines ask every few seconds; their lines would drown the others


def get_service(request: Request) -> Service:
    """The application's service."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]


class InFlight:
    """How many requests are being answered right now."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


class RequestContext:
    """Gives every request its id, a log line, a place in the count of those in flight, and a safe answer to bugs."""

    def __init__(self, app: ASGIApp, in_flight: InFlight) -> None:
        self._app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = request_id_for(Headers(scope=scope).get(HEADER))
        scope.setdefault("state", {})["request_id"] = identity
        token = request_id.set(identity)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = identity
            await send(message)

        self._in_flight.count += 1
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("unexpected error")
            if status == 0:
                answer = error_response(InternalError("The service failed on this request."), identity)
                await answer(scope, receive, send_with_id)
        finally:
            self._in_flight.count -= 1
            fields: dict[str, object] = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "milliseconds": (time.perf_counter() - started) * 1000,
                **scope["state"].get("log_fields", {}),
            }
            probe = scope["path"] in _PROBES and status < 400
            access_log.log(logging.DEBUG if probe else logging.INFO, "request", extra={"fields": fields})
            request_id.reset(token)
