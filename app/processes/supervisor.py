"""The parent of the frontends and the engine process: starts them, restarts them, and ends them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from itertools import count

from tessera.app.dispatch.dispatcher import Phase
from tessera.app.dispatch.experiment import open_experiment
from tessera.app.errors import StartupError
from tessera.app.imaging.memory import create_shared_memory
from tessera.app.processes.child_process import configure
from tessera.app.processes.children import Child, connect, end, report_end
from tessera.app.processes.experiment import SharedExperiment
from tessera.app.processes.messages import Kind, Message, pack_file, unpack_file
from tessera.app.processes.scrapes import Scrapes
from tessera.app.processes.shared_rows import SlotLayout, create_slots
from tessera.app.processes.status_page import StatusPage, create_status_page
from tessera.app.processes.watchdog import INTERVAL, SERVING, SERVING_FRONTEND, STARTING, Patience, Running
from tessera.app.served.model import ServedModel
from tessera.app.settings import Settings
from tessera.app.signals import ending_signals, release_signals

logger = logging.getLogger(__name__)

_FAILURES = 5  # of one kind of process in a row; then a service that was never ready gives up, others go on trying
_FIRST_PAUSE = 0.25  # seconds before the second attempt in a row; doubled each time
_LONGEST_PAUSE = 4.0
_SPARE_PAUSE = 5.0  # seconds before a spare that died is replaced


class Supervisor:
    """Runs the service in several processes.

    Args:
        settings: The settings.
        listeners: One listening socket per frontend. They stay open here, so that connections wait in them while a
            frontend is being restarted.
        progress: Told about building and loading: (stage, fraction of the stage).
        on_ready: Called once, when all processes are ready.
    """

    def __init__(
        self,
        settings: Settings,
        listeners: list[socket.socket],
        *,
        progress: Callable[[str, float], None],
        on_ready: Callable[[ServedModel], None],
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._progress = progress
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._status_file = create_status_page()
        self._status_page = StatusPage(self._status_file)
        self._memory_file = create_shared_memory()
        self._generations = count(1)
        self._engine: Child | None = None
        self._spare: Child | None = None
        self._frontends: list[Child | None] = [None] * len(listeners)
        self._slots = [-1] * len(listeners)
        self._failures: dict[str, int] = {}
        self._model: ServedModel | None = None
        self._experiment: SharedExperiment | None = None
        self._decoders = 1
        self._announced = False
        self._stopping_since: float | None = None
        self._lame_duck = False
        self._forced = False
        self._ended = asyncio.Event()
        self._abandoned = 0
        self._scrapes = Scrapes(self._children)
        self._reports: list[asyncio.Task[None]] = []
        self.failure: StartupError | None = None

    async def run(self) -> int:
        """Serve until a signal; returns how many requests were cut off."""
        for sign in ending_signals():
            self._loop.add_signal_handler(sign, self._begin_end)
        release_signals()
        try:
            self._start_engine()
            for index in range(len(self._listeners)):
                self._start_frontend(index)
            while not self._ended.is_set():
                self._tick()
                await asyncio.sleep(INTERVAL)
            await self._end_children()
        finally:
            for child in self._children():
                child.kill()
        return self._abandoned

    def _children(self) -> list[Child]:
        return [child for child in (self._engine, self._spare, *self._frontends) if child is not None]

    def _start_engine(self) -> None:
        self._status_page.wipe()
        known = None if self._model is None else self._model.to_json().decode()
        self._engine, self._spare = self._spare or self._new_engine(), None
        self._engine.configure(configure({"known": known}, self._settings), (self._status_file,))

    def _new_engine(self) -> Child:
        return Child(
            f"tessera-engine-{next(self._generations)}",
            "tessera.app.processes.engine_process",
            on_message=self._hear_engine,
            on_end=self._engine_ended,
        )

    def _keep_spare(self) -> None:
        """Have a process at hand that has imported everything, half of what a start takes; it holds no model."""
        if self._spare is None and not self._ended.is_set():
            try:
                self._spare = self._new_engine()
            except OSError as error:
                logger.warning("no spare engine process: %s", error)

    def _start_frontend(self, index: int) -> None:
        if self._slots[index] >= 0:
            os.close(self._slots[index])
            self._slots[index] = -1
        self._frontends[index] = frontend = Child(
            f"tessera-frontend-{index}-{next(self._generations)}",
            "tessera.app.processes.frontend_process",
            inherited=self._listeners[index],
            on_message=self._hear_frontend,
            on_end=self._frontend_ended,
        )
        frontend.configure(configure({"index": index}, self._settings), (self._status_file, self._memory_file))

    def _hear_engine(self, engine: Child, message: Message) -> None:
        if message.kind == Kind.WAITING:
            engine.waited += 1
            if engine is self._spare and engine.waited == 1:
                fields = {"process": engine.name, "pid": engine.pid}
                logger.info("a spare engine process is ready", extra={"fields": fields})
        elif message.kind == Kind.PROGRESS:
            stage = message.body.decode()
            if self._model is None:
                self._progress(stage, message.number / 1000)
                self._show(Phase.LOADING, stage, message.number)
        elif message.kind == Kind.READY:
            self._model = ServedModel.from_json(unpack_file(message.files[0]))
            self._decoders = message.number
            if self._experiment is None:  # outlives engine processes
                experiment = open_experiment(self._settings, self._model.variants, self._scrapes.metrics)
                self._experiment = SharedExperiment(experiment, self._show_guard)
            self._failures.pop("engine", None)
            engine.ready = True
            logger.info("the engine is ready", extra={"fields": {"process": engine.name, "pid": engine.pid}})
            for index, frontend in enumerate(self._frontends):
                if frontend is not None and frontend.ready:
                    self._introduce(index, frontend)
            self._announce()
            self._keep_spare()
        elif message.kind == Kind.CHANGED:
            self._model = ServedModel.from_json(unpack_file(message.files[0]))
            for frontend in self._frontends:
                if frontend is not None and frontend.ready:
                    self._describe(self._model, frontend)
        elif message.kind == Kind.BROKEN:
            reason = message.body.decode(errors="replace")
            if self._model is None:
                self._fail(reason)
            else:
                logger.error("the engine process could not load the model again: %s", reason)
                engine.kill()
        elif message.kind == Kind.COLLECTED:
            self._scrapes.collected(engine, message)

    def _hear_frontend(self, frontend: Child, message: Message) -> None:
        if message.kind == Kind.READY:
            frontend.ready = True
            logger.info("a frontend is ready", extra={"fields": {"process": frontend.name, "pid": frontend.pid}})
            self._failures.pop(_role(frontend), None)
            self._introduce(self._frontends.index(frontend), frontend)
            self._announce()
        elif message.kind == Kind.COLLECTED:
            self._scrapes.collected(frontend, message)
        elif message.kind == Kind.SCRAPE:
            self._scrapes.answer(frontend, message)
        elif message.kind == Kind.EVENTS and self._experiment is not None:
            self._experiment.record(message.body)
        elif message.kind == Kind.ASK and self._experiment is not None:
            answer = pack_file(self._experiment.answer(message.body))
            frontend.send(Message(Kind.ANSWER, identity=message.identity, files=(answer,)))
        elif message.kind == Kind.IDLE:
            frontend.idle = True
        elif message.kind == Kind.STOPPED:
            self._abandoned += message.number

    def _introduce(self, index: int, frontend: Child) -> None:
        """Tell a frontend all there is to know."""
        if self._model is not None:
            self._describe(self._model, frontend)
        if self._experiment is not None:
            frontend.send(Message(Kind.GUARD, self._experiment.tripped))
        if self._engine is not None and self._engine.ready and self._model is not None:
            if self._slots[index] < 0:
                # Half as much again as may wait, for those that run; float32 rows take four slots each.
                slots = 6 * self._settings.max_queue_images + 4 * self._settings.max_batch
                self._slots[index] = create_slots(slots, SlotLayout.of(self._model))
            connect(self._engine, frontend, self._slots[index])
            frontend.send(_status(Phase.READY))
        elif self._model is not None:
            frontend.send(_status(Phase.RESTARTING))
        if self._stopping_since is not None:
            frontend.send(Message(Kind.LEAVE if self._lame_duck else Kind.DRAIN))

    def _describe(self, model: ServedModel, frontend: Child) -> None:
        share = max(1, self._decoders // len(self._frontends))
        frontend.send(Message(Kind.MODEL, share, files=(pack_file(model.to_json()),)))

    def _show(self, phase: Phase, stage: str = "", per_mille: int = 0) -> None:
        for frontend in self._frontends:
            if frontend is not None:
                frontend.send(_status(phase, stage, per_mille))

    def _show_guard(self, tripped: bool) -> None:
        for frontend in self._frontends:
            if frontend is not None and frontend.ready:
                frontend.send(Message(Kind.GUARD, tripped))

    def _announce(self) -> None:
        everybody = [self._engine, *self._frontends]
        if not self._announced and self._model is not None and all(child and child.ready for child in everybody):
            self._announced = True
            self._on_ready(self._model)

    def _engine_ended(self, engine: Child) -> None:
        if engine is self._spare:
            self._spare = None
            if not self._ended.is_set():
                self._reports.append(asyncio.ensure_future(report_end(engine)))
                self._loop.call_later(_SPARE_PAUSE, self._keep_spare)
            return
        self._engine = None
        self._scrapes.ended(engine)
        if self._ended.is_set():
            return
        if self._model is not None:
            self._show(Phase.RESTARTING)
        self._restart(engine, self._start_engine)

    def _frontend_ended(self, frontend: Child) -> None:
        index = self._frontends.index(frontend)
        self._frontends[index] = None
        self._scrapes.ended(frontend)
        if not self._ended.is_set() and self._stopping_since is None:
            self._restart(frontend, lambda: self._start_frontend(index))

    def _restart(self, child: Child, start: Callable[[], None]) -> None:
        role = _role(child)
        self._scrapes.restarted(role)
        self._reports.append(asyncio.ensure_future(report_end(child)))
        if child.ready:
            self._start_again(role, start)
        else:
            self._failed_to_start(role, start)

    def _start_again(self, role: str, start: Callable[[], None]) -> None:
        if self._ended.is_set():
            return
        try:
            start()
        except OSError as error:  # no process, no memory, no descriptor left
            logger.error("the %s process cannot be started: %s", role, error)
            self._failed_to_start(role, start)

    def _failed_to_start(self, role: str, start: Callable[[], None]) -> None:
        failures = self._failures[role] = self._failures.get(role, 0) + 1
        if failures >= _FAILURES and not self._announced:
            self._fail(f"The {role} process could not be started {failures} times in a row; the log says why.")
        else:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1))
            self._loop.call_later(pause, self._start_again, role, start)

    def _tick(self) -> None:
        self._end_hung()
        self._scrapes.tick()
        self._reports = [report for report in self._reports if not report.done()]
        if self._stopping_since is not None:
            self._end_lame_duck()
            waiting = [child for child in self._frontends if child is not None and child.ready and not child.idle]
            draining = time.monotonic() - self._stopping_since - self._settings.lame_duck_seconds
            over = not self._lame_duck and (not waiting or draining >= self._settings.drain_seconds)
            if over or self._forced:
                self._ended.set()

    def _end_hung(self) -> None:
        """Kill processes that show no signs of life; the next process gets the connections that wait meanwhile."""
        status_page, engine, spare = self._status_page, self._engine, self._spare
        if engine is not None:
            # Once it has imported everything it beats before it loads, unless it hangs already.
            starting = not engine.ready and (status_page.heartbeat > 0 or engine.waited == 0)
            beats = engine.waited + status_page.heartbeat
            _end_if_hung(engine, "the engine process", beats, STARTING if starting else SERVING, status_page.overdue)
        if spare is not None:
            _end_if_hung(spare, "a spare engine process", spare.waited, SERVING if spare.waited else STARTING)
        for index, frontend in enumerate(self._frontends):
            if frontend is not None:
                patience = SERVING_FRONTEND if frontend.ready else STARTING
                _end_if_hung(frontend, "a frontend", status_page.frontend_heartbeat(index), patience)

    def _begin_end(self) -> None:
        """At the first signal turn readiness off and, at once or later, refuse requests; at the second end at once."""
        if self._stopping_since is not None:
            self._forced = True
            return
        self._stopping_since = time.monotonic()
        logger.info("stopping")
        self._lame_duck = True
        for frontend in self._frontends:
            if frontend is not None:
                frontend.send(Message(Kind.LEAVE))
        self._end_lame_duck()

    def _end_lame_duck(self) -> None:
        """Refuse new requests when the time to answer them all the same is over."""
        if not self._lame_duck or self._stopping_since is None:
            return
        if time.monotonic() - self._stopping_since >= self._settings.lame_duck_seconds:
            self._lame_duck = False
            for frontend in self._frontends:
                if frontend is not None:
                    frontend.send(Message(Kind.DRAIN))

    def _fail(self, reason: str) -> None:
        self.failure = StartupError(reason)
        self._ended.set()

    async def _end_children(self) -> None:
        frontends = [child for child in self._frontends if child is not None]
        await end(frontends)
        for listener in self._listeners:
            listener.close()
        if self._engine is not None:
            if self._forced:
                self._engine.kill()
            await end([child for child in (self._engine, self._spare) if child is not None])


def _status(phase: Phase, stage: str = "", per_mille: int = 0) -> Message:
    return Message(Kind.STATUS, list(Phase).index(phase), per_mille, stage.encode())


def _end_if_hung(child: Child, who: str, beats: int, patience: Patience, overdue: Running | None = None) -> None:
    reason = child.watchdog.look(beats, patience, overdue)
    if reason is not None:
        logger.error("%s hangs: %s", who, reason, extra={"fields": {"process": child.name}})
        child.kill()


def _role(child: Child) -> str:
    return child.name.split("-")[1]


def supervise(
    settings: Settings,
    listeners: list[socket.socket],
    *,
    progress: Callable[[str, float], None],
    on_ready: Callable[[ServedModel], None],
) -> int:
    """Serve in `settings.frontends` frontends and an engine process until a signal.

    Returns:
        How many requests were cut off at the end.

    Raises:
        StartupError: The model could not be loaded, or processes do not come up; the message says why.
    """

    async def run() -> int:
        supervisor = Supervisor(settings, listeners, progress=progress, on_ready=on_ready)
        abandoned = await supervisor.run()
        if supervisor.failure is not None:
            raise supervisor.failure
        return abandoned

    return asyncio.run(run())
