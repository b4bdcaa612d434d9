"""What every call has around it: its id, its log line, its place among those in flight, and how its error ends it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import unquote

import grpc

from tessera.app.api.context import InFlight, access_log
from tessera.app.errors import DeadlineExceededError, InternalError, RequestError, UnsupportedOperationError
from tessera.app.limits.admin import AdminGate
from tessera.app.limits.clients import RateLimiter, client, client_key
from tessera.app.limits.uploads import UploadBudget
from tessera.app.observability import tracing
from tessera.app.observability.logs import request_id, trace_id
from tessera.app.observability.metrics import Metrics
from tessera.app.observability.tracing import RequestTrace, Tracing
from tessera.app.oip.grpc.received import Received
from tessera.app.protocol.request_id import HEADER, request_id_for

logger = logging.getLogger(__name__)

# Machines ask these every few seconds; their lines would drown the others.
_PROBES = ("grpc.health.v1.", "inference.GRPCInferenceService/ServerLive", "inference.GRPCInferenceService/ServerReady")
_CODES_OF_CLASSES: dict[type[RequestError], grpc.StatusCode] = {
    # Their HTTP status says less than gRPC's own words, which its clients rely on.
    UnsupportedOperationError: grpc.StatusCode.UNIMPLEMENTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}


def status_code(error: RequestError) -> grpc.StatusCode:
    """The gRPC status of an error; what is wrong with a request is INVALID_ARGUMENT."""
    of_class = _CODES_OF_CLASSES.get(type(error))
    return of_class or _CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT)


class Requests:
    """What every request has around it, alone in its call or one of a stream.

    Args:
        in_flight: Counts requests together with those of HTTP, so that both are waited for at the end.
        uploads: What messages are held in, together with the bodies of HTTP requests.
        metrics: Where requests are counted that are refused before a method sees them.
        tracing: Where traces go; None makes none.
    """

    def __init__(self, in_flight: InFlight, uploads: UploadBudget, metrics: Metrics, tracing: Tracing | None) -> None:
        self._in_flight = in_flight
        self._uploads = uploads
        self._metrics = metrics
        self._tracing = tracing

    @contextmanager
    def one(self, name: str, context: Any, size: int) -> Iterator[None]:
        """Around the answer to one message of `size` bytes to the method `name`.

        Raises:
            TooManyUploadsError: There is no room for its bytes, which gRPC has received whole by now.
        """
        trace = self._begin_trace(name, context)
        code, message = grpc.StatusCode.CANCELLED, ""
        try:
            with self._in_flight, ExitStack() as held:
                with self.admission():
                    held.enter_context(self._uploads.hold(size))
                yield
            code = grpc.StatusCode.OK
        except RequestError as error:
            code, message = status_code(error), error.message
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            raise
        finally:
            self._metrics.deferral.settle()
            if trace is not None:
                trace.end_call(code=code.value[0], message=message)
                tracing.enter(None)

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Around what may refuse a request before its method runs: the method counts only what it sees."""
        try:
            yield
        except RequestError as error:
            self._metrics.rejected(error.code)
            raise

    def _begin_trace(self, name: str, context: Any) -> RequestTrace | None:
        if self._tracing is None or name.startswith(_PROBES):
            return None
        sent = {key: metadata_value(context, key) for key in ("traceparent", "tracestate")}
        carrier = {key: value for key, value in sent.items() if value is not None}
        trace = self._tracing.begin_call(name, carrier, request_id.get() or "")
        tracing.enter(trace)
        trace_id.set(trace.trace_id)
        return trace


class Calls:
    """Wraps the methods of services into handlers that grpc.aio takes.

    Args:
        requests: What each request has around it.
        rate_limiter: Limits the calls of one client together with its HTTP requests; None for no limit.
    """

    def __init__(self, requests: Requests, rate_limiter: RateLimiter | None) -> None:
        self._requests = requests
        self._rate_limiter = rate_limiter

    def unary(self, name: str, method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        """A handler of a call with one answer."""

        async def handle(received: Received, context: Any) -> Any:
            call = _Call(name, context)
            with call, self._requests.one(name, context, received.size):
                self._admit(name, context)
                with self._requests.admission():
                    message = received.read()
                return await method(message, context)
            return await call.refuse()

        return handle

    def stream(
        self, name: str, method: Callable[[Any, Any], AsyncIterator[Any]]
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        """A handler of a call with a stream of answers. A stream may idle for ever, so the end does not wait for it.

        The method gets the message; of a stream of messages the iterator of `Received`, which it sees to itself.
        """

        async def handle(received: Received | AsyncIterator[Received], context: Any) -> AsyncIterator[Any]:
            call = _Call(name, context)
            with call:
                self._admit(name, context)
                async for answer in method(received.read() if isinstance(received, Received) else received, context):
                    yield answer
                trace_id.set(None)  # the last one's is not the stream's
            if call.error is not None:
                await call.refuse()

        return handle

    def _admit(self, name: str, context: Any) -> None:
        host = peer_host(context)
        client.set(client_key(host) if host is not None else "")
        if self._rate_limiter is not None and host is not None and not name.startswith(_PROBES):
            with self._requests.admission():
                self._rate_limiter.admit(client_key(host))


class _Call:
    """One call, as a context manager that keeps the error it ended with."""

    def __init__(self, name: str, context: Any) -> None:
        self._name = name
        self._context = context
        self._identity = request_id_for(metadata_value(context, HEADER.lower()))
        self._started = time.perf_counter()
        self.error: RequestError | None = None

    async def refuse(self) -> None:
        """End the call with the error's status."""
        assert self.error is not None, "only a call that failed is refused"
        trailers = [(HEADER.lower(), self._identity), ("error-code", self.error.code)]
        if self.error.retry_after is not None:
            trailers.append(("retry-after", str(self.error.retry_after)))
        await self._context.abort(status_code(self.error), self.error.message, tuple(trailers))

    def __enter__(self) -> None:
        self._token = request_id.set(self._identity)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, RequestError):
            self.error = error
        elif isinstance(error, Exception):
            logger.error("unexpected error", exc_info=error)
            self.error = InternalError("The service failed on this request.")
        status = "OK" if self.error is None else status_code(self.error).name
        if error is not None and self.error is None:
            status = "CANCELLED"
        fields = {
            "method": self._name,
            "status": status,
            "milliseconds": (time.perf_counter() - self._started) * 1000,
        }
        probe = self._name.startswith(_PROBES) and status == "OK"
        access_log.log(logging.DEBUG if probe else logging.INFO, "call", extra={"fields": fields})
        request_id.reset(self._token)
        return self.error is not None


def check_admin(gate: AdminGate, context: Any) -> None:
    """Raise unless the call may use admin verbs; see `AdminGate.check`.

    gRPC tells the client's address and not which of ours it called. A client at a loopback address calls one.
    """
    gate.check(metadata_value(context, "authorization"), peer_host(context))


def peer_host(context: Any) -> str | None:
    """The address of the client, or None where it has none."""
    kind, _, address = context.peer().partition(":")
    return unquote(address).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else None


def metadata_value(context: Any, key: str) -> str | None:
    """The value of a metadata key (in lower case) that the client sent; the first of several."""
    values = metadata_values(context, key)
    return values[0] if values else None


def metadata_values(context: Any, key: str) -> list[str]:
    """Every value of a metadata key (in lower case) that the client sent, as texts."""
    return [value for name, value in context.invocation_metadata() or () if name == key and isinstance(value, str)]
