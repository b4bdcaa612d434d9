"""The application: routes, middleware, and a lifespan that owns the service."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from tessera.app.api import admin, classify, docs, experiments, health, live, metrics, models, page, profile
from tessera.app.api.context import PROBES, DirectOperation, HeadAsGet, InFlight, RequestContext
from tessera.app.api.cors import cors
from tessera.app.api.examples import add_examples
from tessera.app.api.handlers import install_error_handlers
from tessera.app.api.openapi import FAULT_RESPONSES, QUERY_RESPONSES, RATE_RESPONSES
from tessera.app.api.query import refuse_unknown_query
from tessera.app.dispatch.dispatcher import Dispatcher
from tessera.app.limits.admin import AdminGate
from tessera.app.limits.clients import RateLimiter
from tessera.app.limits.uploads import UploadBudget
from tessera.app.observability.metrics import Metrics
from tessera.app.observability.tracing import Tracing
from tessera.app.oip import rest
from tessera.app.service import Service
from tessera.app.settings import Settings
from tessera.app.version import service_version

_DESCRIPTION = """
ResNet-50 in two variants, chosen per request: **baseline** (fp32 on ONNX Runtime) and **optimised** (fused, int8,
blocked layout on our own engine). Every error answer has the same shape: `error` (a sentence), `code` (a word),
`request_id`.
"""


class Application(FastAPI):
    """FastAPI, with the operations on the hot path answered before it.

    Attributes:
        direct: What answers POST requests for a path.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.direct: dict[str, ASGIApp] = {}

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with what may come from any path."""
        if self.openapi_schema is None:
            document = super().openapi()
            for path, operations in document["paths"].items():
                common = FAULT_RESPONSES if path in PROBES else {**FAULT_RESPONSES, **RATE_RESPONSES}
                for operation in operations.values():
                    operation["responses"] = copy.deepcopy(common) | operation["responses"]
            add_examples(document)
        return super().openapi()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        direct = self.direct.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if direct is None:
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await direct(scope, receive, send)


class _Around(NamedTuple):
    """What requests of every protocol share."""

    in_flight: InFlight
    uploads: UploadBudget
    rate_limiter: RateLimiter | None
    tracing: Tracing | None


DispatcherFactory = Callable[[Settings, Metrics], Dispatcher]


def create_app(settings: Settings | None = None, *, dispatcher: DispatcherFactory | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: The settings; None reads them from the environment.
        dispatcher: Makes what runs the images; None loads the model into this process.
    """
    service_settings = settings or Settings()
    endpoint = service_settings.otlp_endpoint
    tracing = None if endpoint is None else Tracing(endpoint, service_version())
    admin_gate = AdminGate(service_settings)
    rate_limiter = _rate_limiter(service_settings)
    uploads = UploadBudget(service_settings.max_upload_bytes)
    make_dispatcher = dispatcher or _local

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        counted = Metrics()
        running = make_dispatcher(service_settings, counted)
        service = app.state.service = Service(service_settings, counted, running, admin_gate)
        try:
            shared = _Around(app.state.in_flight, uploads, rate_limiter, tracing)
            async with _grpc(service, shared):
                service.start()  # a frontend says so, and from then on it has to answer
                yield
        finally:
            await service.stop()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = Application(
        title="Tessera",
        version=service_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # `docs` answers there, as strictly as everything else
        docs_url=None,
        redoc_url=None,
    )
    app.state.in_flight = InFlight()
    context = partial(
        RequestContext,
        in_flight=app.state.in_flight,
        uploads=uploads,
        rate_limiter=rate_limiter,
        tracing=tracing,
    )
    around = partial(cors, settings=service_settings)  # refusals included
    app.add_middleware(HeadAsGet)
    app.add_middleware(context)
    app.add_middleware(around)
    install_error_handlers(app)
    own = [classify.router, experiments.router, live.router, models.router, profile.router]
    if service_settings.page:
        own.append(page.router)
    for route in (*own, *rest.routers, health.router, metrics.router, admin.router, docs.router):
        app.include_router(route, dependencies=[Depends(refuse_unknown_query)], responses=QUERY_RESPONSES)
    for operation in classify.router.routes:
        if isinstance(operation, APIRoute):
            app.direct[operation.path] = around(context(DirectOperation(operation)))
    return app


def _rate_limiter(settings: Settings) -> RateLimiter | None:
    return None if settings.rate_limit is None else RateLimiter(settings.rate_limit, settings.rate_burst)


def _local(settings: Settings, metrics: Metrics) -> Dispatcher:
    # Imported here, because a process that only speaks HTTP must not load the engine.
    from tessera.app.dispatch.local import LocalDispatcher

    return LocalDispatcher(settings, metrics)


@asynccontextmanager
async def _grpc(service: Service, around: _Around) -> AsyncIterator[None]:
    """Serve gRPC beside HTTP where the settings ask for it."""
    if service.settings.grpc_port is None:
        yield
        return
    from tessera.app.oip.grpc.calls import Requests  # an extra
    from tessera.app.oip.grpc.server import GrpcServer

    requests = Requests(around.in_flight, around.uploads, service.metrics, around.tracing)
    server = GrpcServer(service, requests, around.rate_limiter)
    await server.start()
    try:
        yield
    finally:
        await server.stop()
