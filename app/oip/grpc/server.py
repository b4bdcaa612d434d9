"""The gRPC server, on the event loop of the HTTP server."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import grpc.aio

from tessera.app.errors import StartupError
from tessera.app.limits.clients import RateLimiter
from tessera.app.oip.grpc.calls import Calls, Requests
from tessera.app.oip.grpc.health import HealthCalls
from tessera.app.oip.grpc.inference import InferenceCalls
from tessera.app.oip.grpc.received import Received
from tessera.app.oip.grpc.reflection import FORMER_NAME, ReflectionCalls
from tessera.app.oip.grpc.schema import Schema
from tessera.app.service import Service

_CALLS_PER_QUEUED_IMAGE = 4
_GRACE = 1.0  # seconds; requests in flight have been waited for before


class GrpcServer:
    """Serves the gRPC services; `start` and `stop` on the event loop.

    Args:
        service: The service behind them.
        requests: What each request has around it.
        rate_limiter: Limits the calls of one client; None for no limit.
    """

    def __init__(self, service: Service, requests: Requests, rate_limiter: RateLimiter | None) -> None:
        settings = service.settings
        self._address = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._port = settings.grpc_port
        self._server = grpc.aio.server(
            # More calls than images may wait are refused anyway; so many messages at most are in memory.
            maximum_concurrent_rpcs=_CALLS_PER_QUEUED_IMAGE * settings.max_queue_images,
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_allowed_incoming_connections", settings.max_connections),
                ("grpc.server_handshake_timeout_ms", int(settings.client_timeout_seconds * 1000)),
                ("grpc.so_reuseport", int(settings.frontends > 0)),  # then several processes share the port
            ],
        )
        calls, inference, health = Calls(requests, rate_limiter), Schema("inference.proto"), Schema("health.proto")
        _register(self._server, calls, inference, InferenceCalls(service, inference, requests))
        _register(self._server, calls, health, HealthCalls(service, health, [inference.service]))
        reflection = Schema("reflection.proto")
        described = ReflectionCalls(reflection, [inference.service, health.service, reflection.service], requests)
        for name in (reflection.service, FORMER_NAME):
            _register(self._server, calls, reflection, described, name)

    async def start(self) -> None:
        """Listen.

        Raises:
            StartupError: The port is taken, or the address cannot be used.
        """
        try:
            self._server.add_insecure_port(f"{self._address}:{self._port}")
        except RuntimeError as error:
            raise StartupError(
                f"gRPC cannot listen on {self._address}:{self._port}: choose another port with --grpc-port."
            ) from error
        await self._server.start()

    async def stop(self) -> None:
        """Take no new calls, and end the streams."""
        await self._server.stop(_GRACE)


def _register(server: Any, calls: Calls, schema: Schema, methods: object, service: str = "") -> None:
    """Have a schema's calls answered, under its own name or another one."""
    service = service or schema.service
    handlers: dict[str, Any] = {}
    for name, call in schema.calls.items():
        method = getattr(methods, name)
        full_name = f"{service}/{name}"
        codec: dict[str, Any] = {
            "request_deserializer": partial(Received, call.request),
            "response_serializer": _serialise,
        }
        if call.client_streams:
            handlers[name] = grpc.stream_stream_rpc_method_handler(calls.stream(full_name, method), **codec)
        elif call.server_streams:
            handlers[name] = grpc.unary_stream_rpc_method_handler(calls.stream(full_name, method), **codec)
        else:
            handlers[name] = grpc.unary_unary_rpc_method_handler(calls.unary(full_name, method), **codec)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _serialise(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded
