"""The engine process: batches and computes for all frontends, and shows its state on the status page."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import select
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.app.dispatch.dispatcher import Phase
from tessera.app.dispatch.executor import ModelExecutor, leave_working_threads
from tessera.app.errors import StartupError
from tessera.app.heap import freeze_heap
from tessera.app.observability.merge import registry_to_json
from tessera.app.observability.metrics import Metrics
from tessera.app.processes.attached_frontend import AttachedFrontend
from tessera.app.processes.child_process import configuration, inherited
from tessera.app.processes.messages import Channel, Kind, Message, pack_file, write_message
from tessera.app.processes.shared_rows import SlotArea, SlotLayout
from tessera.app.processes.status_page import StatusPage
from tessera.app.processes.watchdog import ExpectedSeconds, batch_limit
from tessera.app.scheduling.ticket import Batch, Ticket
from tessera.app.served.model import ServedModel, ServedVariant
from tessera.app.settings import Settings
from tessera.engine import HeatMaps, Session
from tessera.engine.errors import BackendUnavailableError

logger = logging.getLogger(__name__)

_BEAT = 0.05  # seconds between two heartbeats
_SPARE_BEAT = 0.5  # seconds between two heartbeats of a spare
_DEVICE_LOST = 70  # exit code


class EngineProcess:
    """One engine process, from its start to its end.

    Args:
        control: The connection with the supervisor.
        settings: The settings.
        known: What an earlier engine process measured, or None.
        status_page: Where it shows its state.
    """

    def __init__(
        self, control: socket.socket, settings: Settings, known: ServedModel | None, status_page: StatusPage
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._metrics = Metrics()
        self._status_page = status_page
        self._frontends: set[AttachedFrontend] = set()
        self._ended = asyncio.Event()
        self._channel = Channel(control, self._receive, partial(os._exit, 1))
        self._executor = ModelExecutor(
            settings,
            self._metrics,
            deliver=self._deliver,
            progress=self._report,
            known=known,
            watch=self._watched,
            around=self._marked,
        )

    async def run(self) -> None:
        """Load, serve, and return when the supervisor says so."""
        beating = asyncio.create_task(self._beat())
        loading = self._executor.start()
        loading.add_done_callback(self._announce)
        await self._ended.wait()
        beating.cancel()
        for frontend in list(self._frontends):
            frontend.close()
        await self._executor.stop()

    def _announce(self, loading: asyncio.Task[None]) -> None:
        if loading.cancelled():
            return
        if self._executor.status.phase is Phase.FAILED:
            reason = self._executor.status.failure or StartupError("the model could not be loaded")
            self._channel.send(Message(Kind.BROKEN, body=str(reason).encode()[:4096]))
            return
        model = self._executor.model
        self._status_page.show(self._executor.scheduler.snapshot())
        self._channel.send(Message(Kind.READY, self._executor.decoders, files=(pack_file(model.to_json()),)))

    def _receive(self, message: Message) -> None:
        if message.kind == Kind.ATTACH:
            end, slots = message.files
            area = SlotArea(slots, SlotLayout.of(self._executor.model))
            os.close(slots)
            self._frontends.add(
                AttachedFrontend(
                    socket.socket(fileno=end),
                    self._executor,
                    area,
                    on_gone=self._frontends.discard,
                    on_changed=self._tell_change,
                )
            )
        elif message.kind == Kind.COLLECT:
            data = pack_file(registry_to_json(self._metrics.registry))
            self._channel.send(Message(Kind.COLLECTED, identity=message.identity, files=(data,)))
        elif message.kind == Kind.STOP:
            self._ended.set()

    def _tell_change(self) -> None:
        self._channel.send(Message(Kind.CHANGED, files=(pack_file(self._executor.model.to_json()),)))

    def _deliver(self, tickets: list[Ticket]) -> None:
        by_frontend: dict[AttachedFrontend, list[Ticket]] = defaultdict(list)
        for ticket in tickets:
            for frontend in self._frontends:
                if frontend.owns(ticket):
                    by_frontend[frontend].append(ticket)
                    break
        for frontend, finished in by_frontend.items():
            frontend.deliver(finished)

    async def _beat(self) -> None:
        """Show that the event loop works and how the scheduler is. A scheduler without its thread ends the process."""
        while True:
            self._status_page.beat()
            if self._executor.status.phase is Phase.READY:
                scheduler = self._executor.scheduler
                if not scheduler.alive:
                    logger.error("an engine thread has stopped")
                    os._exit(1)
                self._status_page.show(scheduler.snapshot())
            await asyncio.sleep(_BEAT)

    def _report(self, stage: str, fraction: float) -> None:
        message = Message(Kind.PROGRESS, int(fraction * 1000), body=stage.encode()[:1024])
        self._loop.call_soon_threadsafe(self._channel.send, message)

    def _watched(self, session: Session, variant: ServedVariant) -> _WatchedSession:
        return _WatchedSession(session, variant, self._status_page)

    @contextmanager
    def _marked(self, batch: Batch) -> Iterator[None]:
        """Leave in the frontends' slots that these images run: should this process die of one, it was one of these."""
        frontends = list(self._frontends)
        for frontend in frontends:
            frontend.mark(batch.members, running=True)
        try:
            yield
        finally:
            for frontend in frontends:
                frontend.mark(batch.members, running=False)


class _WatchedSession:
    """A session that shows on the status page when a batch begins and ends."""

    def __init__(self, session: Session, variant: ServedVariant, status_page: StatusPage) -> None:
        self._session = session
        self._status_page = status_page
        self._expected = ExpectedSeconds(variant.batch_seconds)

    @property
    def parallel_runs(self) -> int:
        """How many runs at once are worth it now."""
        return self._session.parallel_runs

    @property
    def parallel_images(self) -> int:
        """See `tessera.engine.Session.parallel_images`."""
        return self._session.parallel_images

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run a batch."""
        with self._watching(len(x)):
            return self._session.run(x)

    def explain(self, x: npt.NDArray[Any], top: Sequence[int]) -> tuple[npt.NDArray[np.float32], list[HeatMaps | None]]:
        """Run a batch; see `tessera.engine.Session.explain`."""
        with self._watching(len(x)):
            return self._session.explain(x, top)

    @contextmanager
    def _watching(self, images: int) -> Iterator[None]:
        started = time.perf_counter()
        place = self._status_page.batch_started(batch_limit(self._expected.of(images)))
        try:
            yield
        except BackendUnavailableError as error:
            # Not the images' fault: the device is gone, and a new process has the best chance to find it again.
            logger.error("the device has failed, this engine process ends: %s", error)
            os._exit(_DEVICE_LOST)
        finally:
            self._status_page.batch_ended(place)
        self._expected.observe(images, time.perf_counter() - started)


def main() -> None:
    """Be an engine process; see `tessera.app.processes.child_process.spawn`."""
    importlib.import_module("tessera.engine.backends.cpu")
    freeze_heap()  # now rather than when everybody waits for it
    control = socket.socket(fileno=inherited()[0])
    # Here a spare waits for its time to come, with everything imported that loading imports.
    write_message(control, Message(Kind.WAITING))
    while not select.select([control], [], [], _SPARE_BEAT)[0]:
        write_message(control, Message(Kind.WAITING))
    settings, told, (status_file,) = configuration(control)
    known = told.get("known")
    status_page = StatusPage(status_file)
    os.close(status_file)

    async def run() -> None:
        model = ServedModel.from_json(str(known).encode()) if known is not None else None
        await EngineProcess(control, settings, model, status_page).run()

    asyncio.run(run())
    leave_working_threads(0)
    sys.exit(0)
