"""What the protocol's extensions know and this service does not offer, said so instead of "not found"."""

from __future__ import annotations

from fastapi import APIRouter

from tessera.app.errors import UnsupportedOperationError

router = APIRouter(include_in_schema=False)


@router.api_route("/v2/systemsharedmemory/{rest:path}", methods=["GET", "POST"])
@router.api_route("/v2/cudasharedmemory/{rest:path}", methods=["GET", "POST"])
async def shared_memory(rest: str) -> None:
    """Refuse to register memory of another process."""
    raise UnsupportedOperationError("Shared memory is not supported; send tensors as binary data.")


@router.api_route("/v2/trace/setting", methods=["GET", "POST"])
@router.api_route("/v2/models/{model}/trace/setting", methods=["GET", "POST"])
async def trace(model: str = "") -> None:
    """Refuse to change tracing."""
    raise UnsupportedOperationError("Trace settings are not supported; tracing is configured when the service starts.")


@router.api_route("/v2/logging", methods=["GET", "POST"])
async def logging() -> None:
    """Refuse to change the log."""
    raise UnsupportedOperationError("Log settings are not supported; log_level is set when the service starts.")
