"""Tessera as an application of Ray Serve: a replica is the whole service, Ray's proxies are the balancer.

export PYTHONPATH=$PWD/deploy/ray RAY_AUTH_MODE=token
ray start --head
serve deploy deploy/ray/serve.yaml

See docs/scaling.md; `make ray` runs it on a real cluster.
"""

# Annotations are evaluated here: Serve makes the argument of `tessera` by its annotation, which must not be a text.

import asyncio
import errno
import itertools
import logging
import math
import os
import socket
from typing import Any

import ray
import uvicorn
from pydantic import Field, model_validator
from ray import serve
from ray.serve.config import AutoscalingContext, BackpressureConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tessera.app.dispatch.dispatcher import Phase
from tessera.app.errors import InternalError
from tessera.app.main import create_app
from tessera.app.observability.logs import configure_logs
from tessera.app.service import Service
from tessera.app.settings import Settings

_PORTS = 100  # most replicas of one node
_DEMAND = "tessera_demand_ratio"

logger = logging.getLogger(__name__)


class ReplicaSettings(Settings):
    """The service's settings, from `args` of serve.yaml or from `TESSERA_*`."""

    port: int = Field(
        default=8100, ge=1, le=65535 - _PORTS, description="first port for replicas; each takes the next free one"
    )

    @model_validator(mode="after")
    def _nothing_is_without_effect(self) -> "ReplicaSettings":
        if self.frontends:
            raise ValueError("frontends: Ray's proxies and more replicas are what that would be; leave it out")
        if self.grpc_port is not None:
            raise ValueError("grpc_port: replicas on one node would all want it; Ray Serve's gRPC is another protocol")
        return self


class Replica:
    """What Ray asks of a replica besides requests.

    Args:
        settings: Those of all replicas.
    """

    def __init__(self, settings: ReplicaSettings) -> None:
        configure_logs(settings.log_level, settings.log_format)
        cores = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 0)) or None
        own = {"threads": cores, "decode_threads": cores and max(2, cores // 2)}
        self._settings = settings.model_copy(
            update={name: value for name, value in own.items() if getattr(settings, name) is None}
        )
        self._app = create_app(self._settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application that Ray calls; it waits for its start and, when the replica ends, for its end."""
        app = _RayAnswers(self._app)
        trusted = self._settings.trusted_proxies
        return app if trusted is None else ProxyHeadersMiddleware(app, trusted)  # in front of Ray's

    async def check_health(self) -> None:
        """Return when the replica works, which at first is when the model is loaded; Ray sends no requests before.

        Raises:
            InternalError: Only a restart helps, which Ray sees to.
            RequestError: It is not ready.
        """
        service = self._service
        while service.dispatcher.status().phase is Phase.LOADING:
            await asyncio.sleep(0.05)
        if service.failure is not None:
            raise InternalError(f"The model could not be loaded: {service.failure}")
        service.check_alive()
        service.check_receiving()
        await self._listen()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the signal that replicas are scaled by."""
        return {_DEMAND: self._service.demand_ratio()}

    @property
    def _service(self) -> Service:
        service: Service = self._app.state.service
        return service

    async def _listen(self) -> None:
        """Answer on a port of this replica's own too, which Prometheus can tell from the other replicas'."""
        if hasattr(self, "_direct"):
            return
        listener = _first_free(self._settings.host, self._settings.port)
        config = uvicorn.Config(self._app, lifespan="off", log_config=None, access_log=False)
        self._direct = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))
        host, port = listener.getsockname()[:2]
        logger.info("listening", extra={"fields": {"address": f"{host}:{port}", "pid": os.getpid()}})


class _RayAnswers:
    """The application, without the header that Ray's proxy adds to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"]
            await send(message)

        await self._app(scope, receive, send_once if scope["type"] == "http" else send)


def _first_free(host: str, port: int) -> socket.socket:
    for candidate in itertools.count(port):
        try:
            return socket.create_server((host, candidate))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == port + _PORTS:
                raise
    raise AssertionError("count has no end")


class Demand:
    """As many replicas as the demand ratios of all of them say, at `target` each.

    Args:
        target: What the ratio of a replica should be: 0.7 of what it is when the replica is full.
    """

    def __init__(self, target: float = 0.6) -> None:
        self._target = target

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Return the number that is needed; Ray applies delays, least and most."""
        ratios = (context.aggregated_metrics or {}).get(_DEMAND, {})
        if not ratios:
            return context.target_num_replicas, {}
        return math.fsum(ratios.values()) / self._target, {}


def tessera(settings: ReplicaSettings) -> serve.Application:
    """Build the application; `args` of serve.yaml are settings by name."""
    # What a replica holds: its queue and a batch. As many again are let through, to have the replica's own refusal,
    # which says when to come again. What is more than that waits at the proxy while those are refused, in milliseconds.
    held = settings.max_queue_images + settings.max_batch
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="tessera",
        max_ongoing_requests=2 * held,
        max_queued_requests=2 * held,
        backpressure_config=BackpressureConfig(retry_after_s=1),
        # Ray waits for requests in flight; then the application's own end follows.
        graceful_shutdown_timeout_s=settings.drain_seconds + 10,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        max_constructor_retry_count=3,
    )
    return deployment.bind(settings)
