"""The process around the application: its socket, its signals, and an orderly end."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from tessera.app.api.context import InFlight
from tessera.app.errors import StartupError, TooManyConnectionsError
from tessera.app.http.connection import ConnectionLimits, HttpProtocol
from tessera.app.limits.connections import ConnectionTable, last_file
from tessera.app.service import Service
from tessera.app.settings import Settings
from tessera.app.signals import ending_signals, release_signals

logger = logging.getLogger(__name__)

_BACKLOG = 2048


def bind(host: str, port: int, flag: str = "--port") -> socket.socket:
    """Reserve the address before anything slow happens.

    Args:
        host: The address.
        port: The port; 0 takes a free one.
        flag: The flag that sets the port, for messages.

    Raises:
        StartupError: The port is taken, or the address cannot be used; the message says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartupError(f"The host {host!r} cannot be used: {error}. Choose another with --host.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(_why_not(host, port, flag, error)) from error
    return listener


def reserve(listener: socket.socket) -> socket.socket:
    """Keep a bound socket's address for processes that will share it, and from everybody else.

    Args:
        listener: As `bind` returned it; closed.

    Returns:
        A socket that has the address and does not listen. As long as it is open, only sockets with SO_REUSEPORT can
        have the address too, and `bind` asks for it without.
    """
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper = socket.socket(listener.family, listener.type, listener.proto)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            keeper.setsockopt(socket.SOL_SOCKET, option, 1)
        keeper.bind(listener.getsockname())
        # It was for connections of a former server that are still ending; two sockets that have it share while neither
        # of them listens.
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return keeper


def url_of(listener: socket.socket) -> str:
    """The address of a bound socket as a URL that a local client can use."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def share(listener: socket.socket, count: int) -> list[socket.socket]:
    """Further listening sockets on the address of a bound one; the kernel spreads connections over all of them.

    Args:
        listener: As `bind` returned it: alone on its address, so that no other program's port is shared by mistake.
        count: How many there shall be.

    Returns:
        `count` sockets, `listener` the first.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared = [listener]
    for _ in range(count - 1):
        another = socket.socket(listener.family, listener.type, listener.proto)
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        another.bind(listener.getsockname())
        another.listen(_BACKLOG)
        shared.append(another)
    return shared


def http_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves an application of ours."""

    def count_refusal() -> None:
        service = service_of(app)
        if service is not None:
            service.metrics.rejected(TooManyConnectionsError.code)

    table = ConnectionTable(settings.max_connections, files=last_file(), on_refusal=count_refusal)
    limits = ConnectionLimits(table, settings.client_timeout_seconds)
    return uvicorn.Config(
        app,
        http=partial(HttpProtocol, limits=limits),  # type: ignore[arg-type]  # called like the class it wraps
        timeout_keep_alive=settings.keep_alive_seconds,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies or "",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )


def service_of(app: FastAPI) -> Service | None:
    """The application's service, once its lifespan has begun."""
    return getattr(app.state, "service", None)


def in_flight_of(app: FastAPI) -> InFlight:
    """The application's count of requests in flight."""
    in_flight: InFlight = app.state.in_flight
    return in_flight


class Server(uvicorn.Server):
    """uvicorn with our own end: readiness off, requests in flight finished, then exit 0.

    uvicorn closes its listeners at once on SIGTERM, so a load balancer would learn of the end from refused connections,
    and it exits with the signal. Here the listeners stay open while requests in flight finish.

    Args:
        app: An application of `create_app`.
        settings: The settings.
        on_ready: Called once, when the service has become ready.
    """

    def __init__(self, app: FastAPI, *, settings: Settings, on_ready: Callable[[Service], None]) -> None:
        super().__init__(http_config(app, settings))
        self._app = app
        self._lame_duck_seconds = settings.lame_duck_seconds
        self._drain_seconds = settings.drain_seconds
        self._on_ready: Callable[[Service], None] | None = on_ready
        self._stopped_at: float | None = None
        self._announced_stop = False
        self.abandoned = 0

    @property
    def failure(self) -> Exception | None:
        """Why the service could not become ready, or None."""
        service = self._service
        return None if service is None else service.failure

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals inside the context, those that came before it first."""
        with super().capture_signals():
            for sign in ending_signals():
                signal.signal(sign, self.handle_exit)
            release_signals()
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the orderly end at the first signal; end at once at the second."""
        # Only flags are set here: the signal may interrupt anything, a log line being written included.
        if self._stopped_at is not None:
            self.should_exit = self.force_exit = True
            return
        self._stopped_at = time.monotonic()
        service = self._service
        if service is None:
            return
        if self._lame_duck_seconds > 0:
            service.leave()
        else:
            service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: notice readiness, failure, and the end of the drain."""
        service = self._service
        if service is not None and service.ready and self._on_ready is not None:
            self._on_ready(service)
            self._on_ready = None
        if self.failure is not None:
            self.should_exit = True
        if self._stopped_at is not None:
            if not self._announced_stop:
                self._announced_stop = True
                logger.info("stopping", extra={"fields": {"in_flight": self._in_flight.count}})
            draining = time.monotonic() - self._stopped_at - self._lame_duck_seconds
            if draining >= 0 and service is not None:
                service.drain()
            over = draining >= 0 and (self._in_flight.count == 0 or draining >= self._drain_seconds)
            if over or self.force_exit:
                self.abandoned = self._in_flight.count
                self.should_exit = True
        return await super().on_tick(counter)

    @property
    def _service(self) -> Service | None:
        return service_of(self._app)

    @property
    def _in_flight(self) -> InFlight:
        return in_flight_of(self._app)


def _why_not(host: str, port: int, flag: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken. Stop the program that uses it, or choose another with {flag}."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} needs more rights. Choose one above 1023 with {flag}."
    return f"Port {port} on {host} cannot be used: {error.strerror}. Choose another with --host and {flag}."
