"""A frontend process: HTTP, decoding and validation; no weights, no runtime."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from tessera.app.heap import freeze_heap
from tessera.app.http.server import http_config, in_flight_of, service_of
from tessera.app.imaging.memory import SharedMemory
from tessera.app.main import create_app
from tessera.app.observability.metrics import Metrics
from tessera.app.processes.child_process import configuration, inherited
from tessera.app.processes.messages import Kind, Message
from tessera.app.processes.remote import RemoteDispatcher
from tessera.app.processes.status_page import StatusPage
from tessera.app.processes.supervisor_link import SupervisorLink
from tessera.app.settings import Settings


class FrontendServer(uvicorn.Server):
    """uvicorn, ended by the supervisor in two steps: refuse new requests and finish the others; then end.

    Args:
        app: An application of `create_app`.
        settings: The settings.
        beat: Called ten times a second, as long as the event loop works.
    """

    def __init__(self, app: FastAPI, settings: Settings, beat: Callable[[], None]) -> None:
        super().__init__(http_config(app, settings))
        self._beat = beat
        self._app = app
        self._draining = False
        self._told_idle = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave signals to the supervisor."""

    def leave(self) -> None:
        """Turn readiness off."""
        service = service_of(self._app)
        if service is not None:
            service.leave()

    def drain(self) -> None:
        """Refuse new requests."""
        self._draining = True
        service = service_of(self._app)
        if service is not None:
            service.drain()

    def stop(self) -> None:
        """End; requests still in flight are cut off."""
        self._tell(Message(Kind.STOPPED, in_flight_of(self._app).count))
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: show that the event loop works, and notice the end of the drain."""
        self._beat()
        if self._draining and not self._told_idle and in_flight_of(self._app).count == 0:
            self._told_idle = True
            self._tell(Message(Kind.IDLE))
        return await super().on_tick(counter)

    def _tell(self, message: Message) -> None:
        service = service_of(self._app)
        if service is not None and isinstance(service.dispatcher, RemoteDispatcher):
            service.dispatcher.tell(message)


def main() -> None:
    """Be a frontend process; see `tessera.app.processes.child_process.spawn`."""
    control_number, listener_number = inherited()
    control, listener = socket.socket(fileno=control_number), socket.socket(fileno=listener_number)
    settings, told, (status_file, memory_file) = configuration(control)
    index = int(str(told["index"]))
    status_page = StatusPage(status_file)
    os.close(status_file)

    def dispatcher(given: Settings, metrics: Metrics) -> RemoteDispatcher:
        supervisor = SupervisorLink(
            control,
            metrics,
            on_leave=lambda: server.leave(),
            on_drain=lambda: server.drain(),
            on_stop=lambda: server.stop(),
        )
        memory = SharedMemory(memory_file)
        return RemoteDispatcher(given, supervisor, status_page=status_page, decode_memory=memory)

    app = create_app(settings, dispatcher=dispatcher)
    server = FrontendServer(app, settings, beat=lambda: status_page.frontend_beat(index))
    freeze_heap()
    server.run(sockets=[listener])
    sys.exit(0)
