"""Every error to the one JSON shape of the contract: {"error", "code", "request_id"}."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tessera.app.errors import (
    InternalError,
    InvalidParameterError,
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
    UnknownParameterError,
)


def error_response(error: RequestError, request_id: str, path: str = "") -> JSONResponse:
    """Build the answer for `error` on a request for `path`."""
    body = {"error": error.message, "code": error.code, "request_id": request_id}
    status = oip_status(error) if path.startswith("/v2") else error.status
    return JSONResponse(body, status_code=status, headers=error.headers())


def oip_status(error: RequestError) -> int:
    """The status of an error under /v2, in the words that the protocol's clients know.

    Triton has 400 for whatever is wrong with a request, 503 for whatever may pass, besides 404 and 500. The protocol
    has no query parameters, so one is refused as everywhere.
    """
    if isinstance(error, UnknownParameterError):
        return error.status
    return {408: 400, 413: 400, 415: 400, 422: 400}.get(error.status, error.status)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of the application in the contract's shape."""
    app.add_exception_handler(RequestError, _handle_request_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)


async def _handle_request_error(request: Request, error: Any) -> JSONResponse:
    return _answer(request, error)


async def _handle_validation_error(request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"])
    return error_response(
        InvalidParameterError(f"{where}: {first['msg']}."), request.state.request_id, request.url.path
    )


async def _handle_http_exception(request: Request, error: Any) -> JSONResponse:
    return _answer(request, _translate(request, error))


def _answer(request: Request, error: RequestError) -> JSONResponse:
    return error_response(error, request.state.request_id, request.url.path)


def _translate(request: Request, error: HTTPException) -> RequestError:
    if error.status_code == 404:
        return NotFoundError("There is nothing at this path; /docs lists what there is.")
    if error.status_code == 405:
        allowed = {method.strip() for method in (error.headers or {}).get("Allow", "").split(",")}
        allow = ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))
        return MethodNotAllowedError(f"This path does not answer {request.method}; it answers {allow}.", allow=allow)
    return InternalError(f"The request cannot be answered: {error.detail}.")
