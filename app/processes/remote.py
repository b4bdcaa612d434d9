"""A frontend's side: rows in shared memory, run by the engine process."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from itertools import count

from tessera.app.dispatch.dispatcher import Phase, Reservation, Status
from tessera.app.dispatch.eventloop import call_soon
from tessera.app.dispatch.experiment import ExperimentAccess
from tessera.app.errors import (
    EngineLostError,
    InternalError,
    ModelUnavailableError,
    NotReadyError,
    QueueFullError,
    RequestError,
)
from tessera.app.imaging.memory import DecodeMemory
from tessera.app.processes.heat_maps import unpack_heat_maps
from tessera.app.processes.messages import (
    INPUT_TYPES,
    PRIORITIES,
    Change,
    Channel,
    Kind,
    Message,
    Request,
    pack_seconds,
    unpack_error,
    unpack_file,
    unpack_identities,
)
from tessera.app.processes.reservation import RemoteReservation
from tessera.app.processes.shared_rows import SLOTS_PER_ROW, SlotAllocator, SlotArea, SlotLayout
from tessera.app.processes.status_page import StatusPage
from tessera.app.processes.supervisor_link import SupervisorLink
from tessera.app.scheduling.lanes import variant_of
from tessera.app.scheduling.snapshot import Snapshot
from tessera.app.scheduling.ticket import InputType, Outcome, Priority
from tessera.app.served.model import ServedModel
from tessera.app.settings import Settings
from tessera.wording import counted

logger = logging.getLogger(__name__)

# So many engine processes may die while they run images of a request. The second time it ran alone, so it was the
# cause.
_DEATHS = 2
_ATTEMPTS = 8  # at most so many engine processes get a request, whatever they die of
_PATIENCE = 10.0  # seconds that a request waits for a new engine process
_MARGIN = 0.05  # seconds before its deadline at which a request stops waiting for one


class RemoteDispatcher:
    """Runs images in the engine process. When that dies, requests in flight are run once more by the next one.

    Requests whose images ran at that moment are suspects: the next engine process runs them alone, an image at a time.
    The request that it dies of then is refused; all others are answered. So a request costs two engine processes at
    most.

    Args:
        settings: The settings.
        supervisor: The link with the supervisor, which has not been started.
        status_page: Where the engine process shows its state.
        decode_memory: What all frontends decode large images in.
    """

    def __init__(
        self,
        settings: Settings,
        supervisor: SupervisorLink,
        *,
        status_page: StatusPage,
        decode_memory: DecodeMemory,
    ) -> None:
        self._capacity = settings.max_queue_images
        self._supervisor = supervisor
        self._area: SlotArea | None = None  # comes with the first engine process
        self._allocator = SlotAllocator(0)
        self._status_page = status_page
        self.decode_memory = decode_memory
        self._status = Status(Phase.LOADING, "starting")
        self._model: ServedModel | None = None
        self._places: dict[str, int] = {}
        self._engine: Channel | None = None
        self._decoders = 1
        self._identities = count(1)
        self._reservations: dict[int, RemoteReservation] = {}
        self._changes: dict[int, asyncio.Future[None]] = {}
        self._explaining: set[str] = set()  # variants that this engine process has made ready for that

    def start(self) -> None:
        """Tell the supervisor that this process answers."""
        self._supervisor.start(self._receive_supervisor)

    async def stop(self) -> None:
        """Let go of the engine process."""
        if self._engine is not None:
            self._engine.close()

    def tell(self, message: Message) -> None:
        """Send a message to the supervisor."""
        self._supervisor.tell(message)

    def status(self) -> Status:
        """Where the engine process is."""
        return self._status

    def model(self) -> ServedModel:
        """The loaded model."""
        if self._model is None:
            raise NotReadyError("The model is not ready yet.", retry_after=2)
        return self._model

    def check_alive(self) -> None:
        """Raise `InternalError` when the model could not be loaded."""
        if self._status.phase is Phase.FAILED:
            raise InternalError("The model could not be loaded; the log says why.")

    @property
    def decoders(self) -> int:
        """How many images this process should decode at once: its share of the service's."""
        return self._decoders

    def snapshot(self) -> Snapshot:
        """The engine's state, a moment old."""
        return self._status_page.snapshot()

    def check_room(
        self, variant: str, images: int = 1, *, deadline: float | None = None, priority: Priority = Priority.NORMAL
    ) -> None:
        """Raise what `reserve` would raise now."""
        if self._status.phase is not Phase.READY:
            raise NotReadyError("The engine is being restarted.", retry_after=1)
        if not self.model().variants[variant_of(variant)].loaded:
            raise ModelUnavailableError(f"The variant {variant_of(variant)!r} is unloaded.")
        self._status_page.check_room(
            self._places[variant], images, capacity=self._capacity, deadline=deadline, priority=priority
        )

    def reserve(
        self,
        variant: str,
        images: int,
        *,
        dtype: InputType = "uint8",
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        explain: int = 0,
    ) -> RemoteReservation:
        """Take slots and ask for admission; a refusal that the status page did not foretell arrives during decoding."""
        self.check_room(variant, images, deadline=deadline, priority=priority)
        slots = images * SLOTS_PER_ROW[dtype]
        first = self._allocator.take(slots)
        if first is None or self._area is None:
            raise QueueFullError(f"There is no room in memory for {counted(images, 'more image')}.", retry_after=1)
        admission = Request(
            self._places[variant],
            images,
            INPUT_TYPES.index(dtype),
            PRIORITIES.index(priority),
            math.inf if deadline is None else deadline,
            explain=explain,
        )
        rows = self._area.rows(first, images, dtype, self.model().lanes[variant].size)
        done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        reservation = RemoteReservation(variant, rows, done, next(self._identities), first, dtype, admission)
        self._reservations[reservation.identity] = reservation
        self._ask(reservation)
        return reservation

    def submit(self, reservation: Reservation, core_seconds: float = 0.0) -> None:
        """Have the engine process told that the images are in their slots."""
        assert isinstance(reservation, RemoteReservation), "a reservation goes back to the dispatcher that made it"
        reservation.core_seconds = core_seconds
        call_soon(reservation.done.get_loop(), self._written, reservation)

    def _written(self, reservation: RemoteReservation) -> None:
        if reservation.over or reservation.released:
            return
        reservation.submitted = True
        if self._engine is None:
            self._wait_for_engine(reservation)
        else:
            self._submit(reservation)

    def release(self, reservation: Reservation) -> None:
        """Give the slots back as soon as the engine has no claim to them any more."""
        assert isinstance(reservation, RemoteReservation), "a reservation goes back to the dispatcher that made it"
        reservation.released = True
        if reservation.over or self._engine is None:
            self._free(reservation)
        else:
            self._engine.send(Message(Kind.CANCEL, identity=reservation.identity))

    async def load(self, variant: str) -> None:
        """Have the engine process load a variant beside the one that answers, then let it answer in its place."""
        await self._change(variant, Change.LOAD)

    async def unload(self, variant: str) -> None:
        """Have the engine process refuse further requests for a variant, wait for those admitted, and free it."""
        await self._change(variant, Change.UNLOAD)

    async def prepare_explaining(self, variant: str) -> None:
        """Have the engine process make what a variant needs to say where its scores come from."""
        if variant not in self._explaining:
            await self._change(variant, Change.EXPLAIN)
            self._explaining.add(variant)

    async def _change(self, variant: str, change: Change) -> None:
        if self._engine is None:
            raise NotReadyError("The engine is being restarted.", retry_after=1)
        identity = next(self._identities)
        answer = self._changes[identity] = asyncio.get_running_loop().create_future()
        self._engine.send(Message(Kind.CHANGE, change, identity, variant.encode()))
        try:
            await answer
        finally:
            self._changes.pop(identity, None)

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Ask the supervisor, which knows the metrics of all processes."""
        return await self._supervisor.render_metrics(accept)

    @property
    def experiment(self) -> ExperimentAccess:
        """The experiment, which the supervisor keeps."""
        return self._supervisor.experiment

    def _receive_supervisor(self, message: Message) -> None:
        if message.kind == Kind.ATTACH:
            end, slots = message.files
            self._take_slots(slots)
            self._attach(socket.socket(fileno=end))
        elif message.kind == Kind.STATUS:
            text = message.body.decode(errors="replace")
            phase = list(Phase)[message.number]
            self._status = Status(phase, text, message.identity / 1000)
        elif message.kind == Kind.MODEL:
            self._decoders = max(1, message.number)
            self._take_model(message)

    def _take_model(self, message: Message) -> None:
        self._model = ServedModel.from_json(unpack_file(message.files[0]))
        self._places = {name: place for place, name in enumerate(sorted(self._model.lanes))}
        self._explaining.clear()

    def _take_slots(self, file: int) -> None:
        if self._area is None:  # every engine process gets the same
            self._area = SlotArea(file, SlotLayout.of(self.model()))
            self._allocator = SlotAllocator(self._area.slots)
        os.close(file)

    def _attach(self, end: socket.socket) -> None:
        """Talk to a new engine process from now on, and give it what its predecessor did not finish."""
        if self._engine is not None:
            self._engine.close()
            self._lose_engine()
        self._engine = Channel(end, self._receive_engine, self._lose_engine)
        self._explaining.clear()
        for reservation in self._reservations.values():
            if not (reservation.over or reservation.released):
                self._ask(reservation)
                if reservation.submitted:
                    self._submit(reservation)

    def _lose_engine(self) -> None:
        self._engine = None
        if self._status.phase is Phase.READY:
            self._status = Status(Phase.RESTARTING)
        for change in self._changes.values():
            if not change.done():
                change.set_exception(EngineLostError("The engine process was lost meanwhile.", retry_after=1))
        for reservation in list(self._reservations.values()):
            if reservation.released:
                self._free(reservation)
            elif reservation.submitted and not reservation.over:
                assert self._area is not None, "its rows are in it"
                reservation.suspect(self._area)
                self._wait_for_engine(reservation)

    def _wait_for_engine(self, reservation: RemoteReservation) -> None:
        if reservation.deaths >= _DEATHS or reservation.attempts >= _ATTEMPTS:
            self._give_up(reservation)
            return
        seconds = min(_PATIENCE, reservation.admission.deadline - _MARGIN - time.perf_counter())
        loop = asyncio.get_running_loop()
        reservation.patience = loop.call_later(max(0.0, seconds), self._give_up, reservation)

    def _give_up(self, reservation: RemoteReservation) -> None:
        self._fail(
            reservation,
            EngineLostError("The engine process was lost with this request. Try again.", retry_after=1),
        )

    def _ask(self, reservation: RemoteReservation) -> None:
        if self._engine is not None:
            body = reservation.admission.pack()
            self._engine.send(Message(Kind.ADMIT, identity=reservation.identity, body=body))

    def _submit(self, reservation: RemoteReservation) -> None:
        assert self._engine is not None, "there is an engine process to submit to"
        if reservation.patience is not None:
            reservation.patience.cancel()
            reservation.patience = None
        reservation.attempts += 1
        body = pack_seconds(reservation.core_seconds)
        self._engine.send(Message(Kind.SUBMIT, reservation.first, reservation.identity, body))

    def _receive_engine(self, message: Message) -> None:
        if message.kind == Kind.DONE:
            for identity in unpack_identities(message.body):
                self._finish(identity)
        elif message.kind == Kind.EXPLAINED:
            maps = unpack_heat_maps(unpack_file(message.files[0]))
            if (reservation := self._reservations.get(message.identity)) is not None:
                reservation.heat_maps = maps
        elif message.kind == Kind.CHANGED:
            self._take_model(message)
            change = self._changes.get(message.identity)
            if change is not None and not change.done():
                change.set_result(None)
        elif message.kind == Kind.FAILED and (change := self._changes.get(message.identity)) is not None:
            if not change.done():
                change.set_exception(unpack_error(message))
        elif message.kind == Kind.FAILED:
            reservation = self._reservations.get(message.identity)
            if reservation is not None:
                self._fail(reservation, unpack_error(message))
        elif message.kind == Kind.CANCELLED:
            reservation = self._reservations.get(message.identity)
            if reservation is not None:
                self._free(reservation)

    def _finish(self, identity: int) -> None:
        reservation = self._reservations.get(identity)
        if reservation is None or reservation.over or not reservation.submitted:
            return
        reservation.over = True
        if not reservation.done.done():
            area = self._area
            assert area is not None, "its rows are in it"
            reservation.done.set_result(reservation.outcomes(area))

    def _fail(self, reservation: RemoteReservation, error: RequestError) -> None:
        if reservation.over:
            return
        reservation.over = True
        if not reservation.done.done():
            reservation.done.set_exception(error)

    def _free(self, reservation: RemoteReservation) -> None:
        if self._reservations.pop(reservation.identity, None) is not None:
            if reservation.patience is not None:
                reservation.patience.cancel()
            self._allocator.give(reservation.first, reservation.slots)
