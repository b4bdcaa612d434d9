"""What every route may ask for, and the middleware around all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tessera.app.api.handlers import error_response
from tessera.app.errors import InternalError, RequestError, TooManyHeadersError
from tessera.app.limits.clients import RateLimiter, client, client_key
from tessera.app.limits.uploads import Upload, UploadBudget
from tessera.app.observability import tracing
from tessera.app.observability.logs import request_id, trace_id
from tessera.app.observability.tracing import RequestTrace, Tracing
from tessera.app.protocol.request_id import HEADER, request_id_for
from tessera.app.service import Service

access_log = logging.getLogger("tessera.access")
logger = logging.getLogger(__name__)

# Machines ask these every few seconds; their lines would drown the others.
PROBES = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
HEAD = "tessera.head"  # in the scope of a GET that was a HEAD, for answers that would not end
_MOST_HEADERS = 128
_HEADER = HEADER.lower().encode()


async def get_service(request: Request) -> Service:
    """The application's service. A coroutine, because FastAPI sends plain functions to a thread."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]


class DirectRoute(APIRoute):
    """An operation that FastAPI documents and routes; what it reads of the request it reads itself.

    FastAPI's own resolution of parameters costs a third of a millisecond a request. The endpoint takes the request, the
    service, and the parameters of its path as strings.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        endpoint = cast(Callable[..., Coroutine[Any, Any, Response]], self.endpoint)

        async def handle(request: Request) -> Response:
            return await endpoint(request, await get_service(request), **request.path_params)

        return handle


class DirectOperation:
    """An operation on the hot path as an ASGI application: FastAPI documents it and has no part in it.

    Its layers (middleware, two matches of the route, exit stacks, telemetry) run some 200 functions a request, which
    cost a lone one, whose caches the engine has just emptied, a third of a millisecond.

    Args:
        route: As FastAPI knows it; its path has no parameters.
    """

    def __init__(self, route: APIRoute) -> None:
        self._route = route
        self._endpoint = cast(Callable[[Request, Service], Coroutine[Any, Any, Response]], route.endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["route"] = self._route
        request = Request(scope, receive, send)
        try:
            response = await self._endpoint(request, scope["app"].state.service)
        except RequestError as error:
            response = error_response(error, scope["state"]["request_id"], scope["path"])
        await response(scope, receive, send)


class HeadAsGet:
    """Answers HEAD as GET wherever there is a GET; the server leaves the body out.

    Args:
        app: The application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        # A copy, because everybody outside, the server included, still has to see HEAD.
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET", HEAD: True} if is_head else scope, receive, send)


class InFlight:
    """How many requests are being answered right now."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


class RequestContext:
    """Gives every request its id, log line and trace, a place in the count of those in flight, and its limits.

    Args:
        app: The application inside.
        in_flight: Where requests are counted.
        uploads: The budget that bodies are held in.
        rate_limiter: Admits or refuses a client's request; None admits all.
        tracing: Where traces go; None makes none.
    """

    def __init__(
        self,
        app: ASGIApp,
        in_flight: InFlight,
        uploads: UploadBudget,
        rate_limiter: RateLimiter | None,
        tracing: Tracing | None,
    ) -> None:
        self._app = app
        self._in_flight = in_flight
        self._uploads = uploads
        self._rate_limiter = rate_limiter
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = request_id_for(Headers(scope=scope).get(HEADER))
        state = scope.setdefault("state", {})
        state["request_id"] = identity
        upload = state["upload"] = Upload(self._uploads)
        token = request_id.set(identity)
        client.set(client_key(scope["client"][0]) if scope["client"] is not None else "")
        trace = self._begin_trace(scope, identity)
        started = time.perf_counter()
        status = 0
        header = (_HEADER, identity.encode("latin-1"))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append(header)
            await send(message)

        self._in_flight.count += 1
        try:
            self._admit(scope)
            await self._app(scope, receive, send_with_id)
        except RequestError as error:
            scope["app"].state.service.metrics.rejected(error.code)
            await error_response(error, identity)(scope, receive, send_with_id)
        except Exception:
            logger.exception("unexpected error")
            if status == 0:
                answer = error_response(InternalError("The service failed on this request."), identity)
                await answer(scope, receive, send_with_id)
        finally:
            self._in_flight.count -= 1
            upload.end()
            fields: dict[str, object] = state.get("log_fields", {})
            milliseconds = (time.perf_counter() - started) * 1000
            _log(scope, status, milliseconds, fields)
            scope["app"].state.service.metrics.deferral.settle()
            if trace is not None:
                trace.end(status=status, route=getattr(scope.get("route"), "path", None), fields=fields)
            request_id.reset(token)

    def _begin_trace(self, scope: Scope, identity: str) -> RequestTrace | None:
        # Probes are asked every few seconds and say nothing about requests.
        if self._tracing is None or scope["path"] in PROBES:
            return None
        trace = self._tracing.begin(scope, identity)
        tracing.enter(trace)
        trace_id.set(trace.trace_id)
        return trace

    def _admit(self, scope: Scope) -> None:
        """Refuse what is beyond the limits before anything is done for it.

        Raises:
            TooManyHeadersError: The request has more header lines than any honest client sends.
            RateLimitedError: The client has sent too many requests.
        """
        if len(scope["headers"]) > _MOST_HEADERS:
            raise TooManyHeadersError(f"The request has more than {_MOST_HEADERS} header lines.")
        if self._rate_limiter is not None and scope["path"] not in PROBES and scope["client"] is not None:
            self._rate_limiter.admit(client_key(scope["client"][0]))


def _log(scope: Scope, status: int, milliseconds: float, fields: dict[str, object]) -> None:
    level = logging.DEBUG if scope["path"] in PROBES and status < 400 else logging.INFO
    if access_log.isEnabledFor(level):
        request = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "milliseconds": milliseconds,
        }
        access_log.log(level, "request", extra={"fields": {**request, **fields}})
