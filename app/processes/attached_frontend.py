"""The engine's side of one frontend: its requests become tickets, their outcomes go into its slots."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tessera.app.dispatch.executor import ModelExecutor
from tessera.app.errors import InternalError, RequestError
from tessera.app.processes.heat_maps import pack_heat_maps
from tessera.app.processes.messages import (
    INPUT_TYPES,
    PRIORITIES,
    Change,
    Channel,
    Kind,
    Message,
    Request,
    pack_error,
    pack_file,
    pack_identities,
    unpack_seconds,
)
from tessera.app.processes.shared_rows import SLOTS_PER_ROW, SlotArea
from tessera.app.scheduling.ticket import Ticket

logger = logging.getLogger(__name__)


class _Place(NamedTuple):
    identity: int
    first: int  # slot


class AttachedFrontend:
    """One frontend, from its attachment until it is gone.

    Every ADMIT is answered exactly once, by DONE, FAILED, or CANCELLED; until then the frontend keeps its slots.

    Args:
        end: The connection.
        executor: Runs its images.
        area: Its slots.
        on_gone: Called with it when the frontend has ended.
        on_changed: Called when a variant was loaded or unloaded.
    """

    def __init__(
        self,
        end: socket.socket,
        executor: ModelExecutor,
        area: SlotArea,
        *,
        on_gone: Callable[[AttachedFrontend], None],
        on_changed: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._area = area
        self._on_gone = on_gone
        self._on_changed = on_changed
        self._changes: set[asyncio.Task[None]] = set()
        self._lanes = sorted(executor.model.lanes)
        self._sizes = {lane: preprocessing.size for lane, preprocessing in executor.model.lanes.items()}
        self._tickets: dict[int, Ticket] = {}
        self._places: dict[Ticket, _Place] = {}
        self._channel = Channel(end, self._receive, self._gone)

    def close(self) -> None:
        """Let go of the frontend."""
        self._channel.close()

    def owns(self, ticket: Ticket) -> bool:
        """Whether a submitted ticket is this frontend's."""
        return ticket in self._places

    def mark(self, members: Sequence[tuple[Ticket, int]], *, running: bool) -> None:
        """Leave in the slots of this frontend's images whether they run now. Called on the engine thread.

        Args:
            members: (ticket, image index), of any frontends.
            running: Whether they do.
        """
        for ticket, index in members:
            place = self._places.get(ticket)
            if place is not None:
                slot = place.first + index * SLOTS_PER_ROW[ticket.dtype]
                self._area.mark(slot, place.identity, running=running)

    def deliver(self, tickets: Sequence[Ticket]) -> None:
        """Tell the frontend which of its requests are over."""
        done = []
        for ticket in tickets:
            place = self._places.pop(ticket)
            del self._tickets[place.identity]
            if ticket.failure is not None:
                self._refuse(place.identity, ticket.failure)
                continue
            step = SLOTS_PER_ROW[ticket.dtype]
            for index, outcome in enumerate(ticket.outcomes):
                assert outcome is not None, "a delivered ticket has every outcome"
                self._area.write_outcome(place.first + index * step, place.identity, outcome)
            if ticket.explain:
                self._send_heat_maps(place.identity, ticket)
            done.append(place.identity)
        if done:
            self._channel.send(Message(Kind.DONE, body=pack_identities(done)))

    def _send_heat_maps(self, identity: int, ticket: Ticket) -> None:
        maps = [outcome.heat_maps for outcome in ticket.outcomes if outcome is not None and outcome.heat_maps]
        if len(maps) == ticket.images:  # else the engine failed on one, which is all that the client is told
            self._channel.send(Message(Kind.EXPLAINED, identity=identity, files=(pack_file(pack_heat_maps(maps)),)))

    def _receive(self, message: Message) -> None:
        if message.kind == Kind.ADMIT:
            self._admit(message.identity, Request.unpack(message.body))
        elif message.kind == Kind.SUBMIT:
            self._submit(message.identity, message.number, unpack_seconds(message.body))
        elif message.kind == Kind.CANCEL:
            self._cancel(message.identity)
        elif message.kind == Kind.CHANGE:
            task = asyncio.ensure_future(self._change(message))
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)

    async def _change(self, message: Message) -> None:
        executor = self._executor
        changes = {
            Change.UNLOAD: executor.unload,
            Change.LOAD: executor.load,
            Change.EXPLAIN: executor.prepare_explaining,
        }
        change = Change(message.number)
        try:
            await changes[change](message.body.decode())
        except RequestError as error:
            self._refuse(message.identity, error)
            return
        # The supervisor first: a client that has the answer may count on it, even if this process dies right after.
        if change is not Change.EXPLAIN:
            self._on_changed()
        model = pack_file(executor.model.to_json())
        self._channel.send(Message(Kind.CHANGED, identity=message.identity, files=(model,)))

    def _admit(self, identity: int, request: Request) -> None:
        try:
            self._tickets[identity] = self._executor.scheduler.admit(
                self._lanes[request.variant],
                request.images,
                deadline=None if math.isinf(request.deadline) else request.deadline,
                priority=PRIORITIES[request.priority],
                dtype=INPUT_TYPES[request.dtype],
                alone=request.alone,
                explain=request.explain,
            )
        except RequestError as error:
            self._refuse(identity, error)

    def _submit(self, identity: int, first: int, core_seconds: float) -> None:
        ticket = self._tickets.get(identity)
        if ticket is None:
            return  # refused at admission; the frontend knows by now
        scheduler = self._executor.scheduler
        try:
            rows = self._area.rows(first, ticket.images, ticket.dtype, self._sizes[ticket.variant])
            if core_seconds > 0:
                for _ in range(ticket.images):
                    scheduler.decoded(core_seconds / ticket.images)
            self._places[ticket] = _Place(identity, first)
            scheduler.submit(ticket, rows)
        except ValueError as error:
            logger.error("a frontend submitted what cannot be: %s", error)
            self._forget(identity)
            self._refuse(identity, InternalError("The service failed on this request."))

    def _cancel(self, identity: int) -> None:
        self._forget(identity)
        self._channel.send(Message(Kind.CANCELLED, identity=identity))

    def _forget(self, identity: int) -> None:
        ticket = self._tickets.pop(identity, None)
        if ticket is not None:
            self._executor.scheduler.cancel(ticket)
            self._places.pop(ticket, None)

    def _refuse(self, identity: int, error: RequestError) -> None:
        self._channel.send(pack_error(error)._replace(identity=identity))

    def _gone(self) -> None:
        for identity in list(self._tickets):
            self._forget(identity)
        self._on_gone(self)
