"""The application: routes, middleware, and a lifespan that owns the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.api import classify, docs, health, metrics, models
from app.api.context import InFlight, RequestContext
from app.api.handlers import install_error_handlers
from app.limits.clients import RateLimiter
from app.limits.uploads import UploadBudget
from app.loading import Progress
from app.observability.metrics import Metrics
from app.observability.tracing import Tracing
from app.service import Service, service_version
from app.settings import Settings

_DESCRIPTION = """
ResNet-50 in two variants, chosen per request: **baseline** (fp32 on ONNX Runtime) and **optimised** (fused, int8,
blocked layout on our own engine). Every error answer has the same shape: `error` (a sentence), `code` (a word),
`request_id`.
"""


def create_app(settings: Settings | None = None, *, progress: Progress | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: The settings; None reads them from the environment.
        progress: Told about building and loading: (stage, fraction of the stage).
    """
    service_settings = settings or Settings()
    endpoint = service_settings.otlp_endpoint
    tracing = None if endpoint is None else Tracing(endpoint, service_version())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = app.state.service = Service(service_settings, Metrics(), progress)
        service.start()
        try:
            yield
        finally:
            await service.stop()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="Tessera",
        version=service_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.in_flight = InFlight()
    app.add_middleware(
        RequestContext,
        in_flight=app.state.in_flight,
        uploads=UploadBudget(service_settings.max_upload_bytes),
        rate_limiter=_rate_limiter(service_settings),
        tracing=tracing,
    )
    install_error_handlers(app)
    for route in (classify, models, health, metrics, docs):
        app.include_router(route.router)
    return app


def _rate_limiter(settings: Settings) -> RateLimiter | None:
    return None if settings.rate_limit is None else RateLimiter(settings.rate_limit, settings.rate_burst)
