"""Serve a model over HTTP. The first start builds the model's variants, which takes a moment."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from socket import socket

from tessera.app.commands.flags import unknown_variables
from tessera.app.commands.output import drop_output
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.errors import StartupError
from tessera.app.http.server import Server, bind, reserve, share, url_of
from tessera.app.limits.admin import AdminGate
from tessera.app.limits.connections import allow_files
from tessera.app.observability.logs import configure_logs
from tessera.app.served.model import ServedModel
from tessera.app.service import Service
from tessera.app.settings import Settings
from tessera.app.signals import hold_signals

logger = logging.getLogger(__name__)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal.

    Returns:
        0 after an orderly end, 1 when the model could not be loaded or requests were cut off, 2 for bad settings.
    """
    hold_signals()  # until the server takes over
    try:
        AdminGate(settings)  # a frontend that finds the token wanting could only die of it
    except StartupError as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 2
    configure_logs(settings.log_level, settings.log_format)
    for name in unknown_variables():
        logger.warning("an environment variable looks like a setting and is none", extra={"fields": {"name": name}})
    _tell_of_few_files(settings)
    listener = bind(settings.host, settings.port)
    url = url_of(listener)
    logger.info("listening", extra={"fields": {"url": url}})
    serve = _serve_alone if settings.frontends == 0 else _serve_in_processes
    with ExitStack() as held:
        settings = _choose_grpc_port(settings, held)
        display = held.enter_context(ProgressDisplay(as_log=settings.log_format == "json"))

        def announce(model: ServedModel) -> None:
            display.close()
            names = ", ".join(
                f"{name} (default)" if name == settings.default_variant else name for name in sorted(model.variants)
            )
            try:
                print(
                    f"Tessera is ready on {url}  model: {model.name}  variants: {names}  docs: {url}/docs", flush=True
                )
            except OSError as error:  # the reader of standard output has left
                drop_output()
                fields = {"url": url, "error": error.strerror}
                logger.warning("ready, though the line that says so could not be written", extra={"fields": fields})

        return serve(settings, listener, display, announce)


def _tell_of_few_files(settings: Settings) -> None:
    # gRPC's connections are as many again, see `tessera.app.oip.grpc.server`.
    connections = settings.max_connections * (1 if settings.grpc_port is None else 2)
    allowed = allow_files(connections)
    if allowed is not None:
        fields = {"max_connections": settings.max_connections, "open_files": allowed}
        logger.warning(
            "max_connections is more than the limit of open files allows; raise it, with ulimit -n for one",
            extra={"fields": fields},
        )


def _choose_grpc_port(settings: Settings, held: ExitStack) -> Settings:
    """Settings with a gRPC port that is free, which every frontend will then listen on.

    Args:
        settings: The settings.
        held: Keeps the port for the frontends until it is closed.

    Raises:
        StartupError: It is taken, or the packages for gRPC are missing; the message says what to do.
    """
    if settings.grpc_port is None:
        return settings
    for package in ("grpc", "google.protobuf"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise StartupError(
                f"gRPC needs the package {package}: pip install 'tessera-inference[grpc]', or leave --grpc-port out."
            ) from error
    probe = bind(settings.host, settings.grpc_port, "--grpc-port")
    port = probe.getsockname()[1]
    if settings.frontends > 0:
        held.enter_context(reserve(probe))
    else:
        probe.close()
    logger.info("listening for gRPC", extra={"fields": {"address": f"{settings.host}:{port}"}})
    return settings.model_copy(update={"grpc_port": port})


def _serve_alone(
    settings: Settings, listener: socket, display: ProgressDisplay, announce: Callable[[ServedModel], None]
) -> int:
    # Imported here, because with frontends this process must not load the engine.
    from tessera.app.dispatch.executor import leave_working_threads
    from tessera.app.dispatch.local import LocalDispatcher
    from tessera.app.main import create_app

    def on_ready(service: Service) -> None:
        announce(service.check_ready())

    app = create_app(settings, dispatcher=lambda given, metrics: LocalDispatcher(given, metrics, display))
    server = Server(app, settings=settings, on_ready=on_ready)
    code = 1
    try:
        server.run(sockets=[listener])
        display.close()
        if server.failure is not None:
            print(f"tessera: {server.failure}", file=sys.stderr)
        elif server.started and not _told_of_cut_off(server.abandoned):
            code = 0
    except Exception:
        logger.exception("the server failed")
    leave_working_threads(code)
    return code


def _serve_in_processes(
    settings: Settings, listener: socket, display: ProgressDisplay, announce: Callable[[ServedModel], None]
) -> int:
    if sys.platform != "linux":
        raise StartupError("Several processes need Linux; serve with --frontends 0.")
    from tessera.app.processes.supervisor import supervise

    listeners = share(listener, settings.frontends)
    abandoned = supervise(settings, listeners, progress=display, on_ready=announce)
    return 1 if _told_of_cut_off(abandoned) else 0


def _told_of_cut_off(requests: int) -> bool:
    if requests:
        print(f"tessera: requests in flight that were cut off: {requests}", file=sys.stderr)
    return requests > 0
