"""Web pages from elsewhere that may call this service from a browser, where the settings name their origins."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from tessera.app.api.openapi import HEADERS
from tessera.app.protocol.request_id import HEADER as REQUEST_ID
from tessera.app.routing.variants import HEADER as VARIANT
from tessera.app.settings import Settings

_BINARY = "Inference-Header-Content-Length"  # of infer requests and answers


def cors(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Let pages of the configured origins call an application; without any, the application as it is.

    With the headers that are documented, and so without Authorization, which admin verbs need.
    """
    origins = settings.allowed_origins
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=(*(header["name"] for header in HEADERS), _BINARY),
        expose_headers=(VARIANT, REQUEST_ID, "Retry-After", _BINARY),
    )
