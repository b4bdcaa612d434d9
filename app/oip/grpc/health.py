"""grpc.health.v1: what load balancers and Kubernetes probe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

from tessera.app.errors import NotFoundError
from tessera.app.oip.grpc.schema import Schema
from tessera.app.service import Service

_INTERVAL = 0.25  # seconds between looks at the service while a client watches


class HealthCalls:
    """Each method is the call of its name.

    Args:
        service: The service.
        schema: The messages.
        names: Services that can be asked for; "" is the server as a whole.
    """

    def __init__(self, service: Service, schema: Schema, names: Collection[str]) -> None:
        self._service = service
        self._response = schema["HealthCheckResponse"]
        self._names = {"", *names}

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802, the protocol names it
        """Whether requests are answered now."""
        if request.service not in self._names:
            raise NotFoundError(f"There is no service {request.service[:80]!r}.")
        return self._response(status=self._status(request.service))

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """The status now, and whenever it changes."""
        told = None
        while True:
            status = self._status(request.service)
            if status != told:
                told = status
                yield self._response(status=status)
            await asyncio.sleep(_INTERVAL)

    def _status(self, name: str) -> str:
        if name not in self._names:
            return "SERVICE_UNKNOWN"
        return "SERVING" if self._service.ready else "NOT_SERVING"
