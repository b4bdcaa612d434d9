"""OpenTelemetry traces: a span per request, one per stage under it. Off unless an endpoint is set; needs an extra.

The trace of a client that sends W3C `traceparent` (https://www.w3.org/TR/trace-context/) goes on here. Sampling follows
the client's decision and `OTEL_TRACES_SAMPLER`; the exporter's other `OTEL_EXPORTER_OTLP_*` variables hold too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from tessera.app.errors import StartupError, shortened

if TYPE_CHECKING:
    from opentelemetry.trace import Span

SERVICE = "tessera"
_FLUSH_SECONDS = 5
_MOST_CONTEXT = 512  # characters of a traceparent or tracestate (W3C Trace Context, 3.3.1.5); longer ones are not read
_MOST_PATH = 256  # characters of a path in a span

_current: ContextVar[RequestTrace | None] = ContextVar("request_trace", default=None)


class RequestTrace:
    """The span of one request, and those of its stages.

    Args:
        tracing: Where the spans go.
        span: The request's span, started.
    """

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        # Stages are timed on the monotonic clock; spans want the time of day.
        self._epoch = time.time_ns() - time.perf_counter_ns()

    @property
    def trace_id(self) -> str:
        """The trace's id, 32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def stage(self, name: str, started: float, ended: float, **attributes: int | float | str) -> None:
        """Add the span of a stage; times are those of `time.perf_counter`."""
        if not self._span.is_recording():
            return
        child = self._tracing.start_child(name, self._span, self._nanoseconds(started))
        child.set_attributes(attributes)
        child.end(self._nanoseconds(ended))

    def end_call(self, *, code: int, message: str) -> None:
        """End the span of a gRPC call.

        Args:
            code: Its gRPC status code, 0 for OK.
            message: What the client is told; empty for OK.
        """
        if self._span.is_recording():
            self._tracing.finish_call(self._span, code, message)
        self._span.end()

    def end(self, *, status: int, route: str | None, fields: dict[str, object]) -> None:
        """End the request's span.

        Args:
            status: The answer's HTTP status; 0 when there was none.
            route: The path's pattern, such as `/v2/models/{model}`, which names the span; None where none matched.
            fields: What the request's log line says of it; becomes attributes `tessera.*`.
        """
        if self._span.is_recording():
            self._tracing.finish(self._span, status, route, fields)
        self._span.end()

    def _nanoseconds(self, moment: float) -> int:
        return self._epoch + int(moment * 1e9)


class Tracing:
    """Makes spans and hands them, in batches on a thread of its own, to an OTLP/HTTP receiver.

    Args:
        endpoint: The receiver's URL, path included.
        version: The service's version.

    Raises:
        StartupError: The extra `tracing` is not installed.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise StartupError(
                f"Setting otlp_endpoint needs {error.name}: pip install 'tessera-inference[tracing]'."
            ) from error
        resource = Resource.create({"service.name": SERVICE, "service.version": version})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_FLUSH_SECONDS))
        )
        self._tracer = self._provider.get_tracer(SERVICE, version)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def begin(self, scope: Any, request_id: str) -> RequestTrace:
        """Start the span of the ASGI request `scope`; its stages and log lines find it until `leave`."""
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        attributes = {"http.request.method": scope["method"], "url.path": shortened(scope["path"], _MOST_PATH)}
        return self._begin(scope["method"], carrier, {**attributes, "tessera.request_id": request_id})

    def begin_call(self, name: str, carrier: Mapping[str, str], request_id: str) -> RequestTrace:
        """Start the span of a gRPC request, named as OpenTelemetry's conventions for RPC want it.

        Args:
            name: Service and method, `inference.GRPCInferenceService/ModelInfer`.
            carrier: Its metadata `traceparent` and `tracestate`, where it has them.
            request_id: Its id.
        """
        service, _, method = name.partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        return self._begin(name, carrier, {**attributes, "tessera.request_id": request_id})

    def _begin(self, name: str, carrier: Mapping[str, str], attributes: Mapping[str, str]) -> RequestTrace:
        carrier = {name: value for name, value in carrier.items() if len(value) <= _MOST_CONTEXT}
        parent = self._propagator.extract(carrier) if carrier else None
        span = self._tracer.start_span(name, context=parent, kind=self._trace.SpanKind.SERVER)
        if span.is_recording():
            span.set_attributes({**attributes})
        return RequestTrace(self, span)

    def start_child(self, name: str, parent: Span, started: int) -> Span:
        """Start a span under `parent` at `started` (nanoseconds of the epoch)."""
        context = self._trace.set_span_in_context(parent)
        return self._tracer.start_span(name, context=context, start_time=started)

    def finish(self, span: Span, status: int, route: str | None, fields: dict[str, object]) -> None:
        """Write what is known at the end of a request into its span."""
        if status:
            span.set_attribute("http.response.status_code", status)
        if route is not None:
            span.update_name(f"{span.name} {route}")  # type: ignore[attr-defined]  # the SDK's spans have a name
            span.set_attribute("http.route", route)
        for name, value in fields.items():
            span.set_attribute(f"tessera.{name}", value if isinstance(value, (int, float)) else str(value))
        if status == 0 or status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    def finish_call(self, span: Span, code: int, message: str) -> None:
        """Write what is known at the end of a gRPC request into its span."""
        span.set_attribute("rpc.grpc.status_code", code)
        if code:
            span.set_status(self._trace.StatusCode.ERROR, message)

    def close(self) -> None:
        """Send what is left, for a few seconds at most. Blocking."""
        self._provider.force_flush(_FLUSH_SECONDS * 1000)
        self._provider.shutdown()


def enter(trace: RequestTrace | None) -> None:
    """Make `trace` the one that this task's stages belong to."""
    _current.set(trace)


def stage(name: str, started: float, ended: float, **attributes: int | float | str) -> None:
    """Record a stage of the current request; costs nothing to speak of while tracing is off."""
    trace = _current.get()
    if trace is not None:
        trace.stage(name, started, ended, **attributes)


class Ran(Protocol):
    """The times of one image that ran, in seconds."""

    @property
    def queue_seconds(self) -> float:
        """From pixels to batch."""

    @property
    def compute_seconds(self) -> float:
        """The batch's run."""

    @property
    def batch_size(self) -> int:
        """Images in the batch."""


class Timed(Ran, Protocol):
    """The times of one image that was answered, in seconds."""

    @property
    def decode_seconds(self) -> float:
        """From file to pixels."""


def trace_images(images: Sequence[Timed], ended: float) -> None:
    """Record decode, queue and compute of a request from the times of its images, the last of which ended at `ended`.

    One span per stage, for the image that took longest from queue to answer: that is the one the request waited for.
    """
    trace = _current.get()
    if trace is None or not images:
        return
    queued = _slowest(images, ended)[0]
    trace.stage("decode", queued - max(image.decode_seconds for image in images), queued, images=len(images))
    trace_runs(images, ended)


def trace_runs(images: Sequence[Ran], ended: float) -> None:
    """As `trace_images`, of images that came decoded."""
    trace = _current.get()
    if trace is None or not images:
        return
    queued, computing, batch_size = _slowest(images, ended)
    trace.stage("queue", queued, computing)
    trace.stage("compute", computing, ended, batch_size=batch_size)


def _slowest(images: Sequence[Ran], ended: float) -> tuple[float, float, int]:
    """When the image that took longest joined the queue, when its batch began, and how large that was."""
    last = max(images, key=lambda image: image.queue_seconds + image.compute_seconds)
    computing = ended - last.compute_seconds
    return computing - last.queue_seconds, computing, last.batch_size
