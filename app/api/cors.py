"""Web pages from elsewhere that may call this service from a browser, where the settings name their origins."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from tessera.app.api.handlers import error_response
from tessera.app.api.openapi import HEADERS
from tessera.app.errors import PreflightError, quoted
from tessera.app.protocol.request_id import HEADER as REQUEST_ID
from tessera.app.protocol.request_id import request_id_for
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
    return _Cors(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=(*(header["name"] for header in HEADERS), _BINARY),
        expose_headers=(VARIANT, REQUEST_ID, "Retry-After", _BINARY),
    )


class _Cors(CORSMiddleware):
    """Starlette's, which refuses a preflight in the contract's shape."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer the question whether a page may send a request."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        identity = request_id_for(request_headers.get(REQUEST_ID))
        refusal = error_response(PreflightError(self._why(request_headers)), identity)
        refusal.headers[REQUEST_ID] = identity
        for name, value in response.headers.items():
            refusal.headers.setdefault(name, value)
        return refusal

    def _why(self, asked: Headers) -> str:
        origin, method = asked["origin"], asked["access-control-request-method"]
        if not self.is_allowed_origin(origin=origin):
            return (
                f"Pages of {quoted(origin)} may not call this service; the setting cors_origins names those that may."
            )
        if method not in self.allow_methods:
            return f"Pages from elsewhere may send {', '.join(self.allow_methods)}, not {quoted(method)}."
        named = asked.get("access-control-request-headers")
        if named is not None and any(name.strip() not in self.allow_headers for name in named.lower().split(",")):
            return f"Pages from elsewhere may send the headers that /docs shows, not all of {quoted(named)}."
        return "Pages from elsewhere may not reach this service in a private network."
