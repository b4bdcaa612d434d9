"""Serve a model over HTTP. The first start builds the model's variants, which takes a moment."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from app.commands.flags import add_settings_flags, settings_from, unknown_variables
from app.commands.progress import ProgressDisplay
from app.dispatch.host import leave_working_threads
from app.dispatch.local import LocalDispatcher
from app.main import create_app
from app.observability.logs import configure_logs
from app.server import Server, bind, url_of
from app.service import Service
from app.settings import Settings

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments: every setting."""
    add_settings_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; 0 after an orderly end, 1 when the model could not be loaded or requests were cut off."""
    # Until the server takes over the signals, there is nothing to finish.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    code = _serve(settings_from(arguments))
    leave_working_threads(code)
    return code


def _serve(settings: Settings) -> int:
    configure_logs(settings.log_level, settings.log_format)
    for name in unknown_variables():
        logger.warning("an environment variable looks like a setting and is none", extra={"fields": {"name": name}})
    listener = bind(settings.host, settings.port)
    url = url_of(listener)
    logger.info("listening", extra={"fields": {"url": url}})
    with ProgressDisplay() as display:

        def announce(service: Service) -> None:
            display.close()
            model = service.check_ready()
            names = ", ".join(
                f"{name} (default)" if name == settings.default_variant else name for name in sorted(model.variants)
            )
            print(f"Tessera is ready on {url}  model: {model.name}  variants: {names}  docs: {url}/docs", flush=True)

        app = create_app(settings, dispatcher=lambda given, metrics: LocalDispatcher(given, metrics, display))
        server = Server(app, settings=settings, on_ready=announce)
        server.run(sockets=[listener])
    if server.failure is not None:
        print(f"tessera: {server.failure}", file=sys.stderr)
        return 1
    if server.abandoned:
        print(f"tessera: requests in flight that were cut off: {server.abandoned}", file=sys.stderr)
        return 1
    return 0
