"""A frontend's connection with the supervisor: what it is told and asked, and what it asks."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from itertools import count

from tessera.app.dispatch.experiment import ExperimentAccess
from tessera.app.errors import NotReadyError
from tessera.app.observability.merge import registry_to_json
from tessera.app.observability.metrics import Metrics
from tessera.app.processes.experiment import RemoteExperiment
from tessera.app.processes.messages import Channel, Kind, Message, pack_file, unpack_file

_ANSWER_SECONDS = 5.0


class SupervisorLink:
    """Answers the supervisor, and reaches through it what it keeps for all processes: metrics and the experiment.

    Args:
        end: This process's end of the connection.
        metrics: What this process counts.
        on_leave: Called when readiness is to be turned off.
        on_drain: Called when requests are to be refused.
        on_stop: Called when this process is to end.
    """

    def __init__(
        self,
        end: socket.socket,
        metrics: Metrics,
        *,
        on_leave: Callable[[], None],
        on_drain: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._end = end
        self._metrics = metrics
        self._orders: dict[int, Callable[[], None]] = {Kind.LEAVE: on_leave, Kind.DRAIN: on_drain, Kind.STOP: on_stop}
        self._on_engine: Callable[[Message], None] | None = None
        self._channel: Channel | None = None
        self._identities = count(1)
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._experiment = RemoteExperiment(
            lambda events: self.tell(Message(Kind.EVENTS, body=events)),
            lambda question: self._ask(Kind.ASK, question),
        )

    def start(self, on_engine: Callable[[Message], None]) -> None:
        """Tell the supervisor that this process answers.

        Args:
            on_engine: Given what the supervisor tells of the engine process: ATTACH, STATUS and MODEL.
        """
        self._on_engine = on_engine
        # Without the supervisor there is no service: no process that fails would be restarted.
        self._channel = Channel(self._end, self._receive, lambda: os._exit(1))
        self.tell(Message(Kind.READY))

    def tell(self, message: Message) -> None:
        """Send a message, once started."""
        if self._channel is not None:
            self._channel.send(message)

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Ask for the metrics of all processes, and their content type.

        Raises:
            NotReadyError: There was no answer in time.
        """
        answer = await self._ask(Kind.SCRAPE, accept.encode()[:4096])
        content_type, _, body = answer.partition(b"\n")
        return body, content_type.decode()

    @property
    def experiment(self) -> ExperimentAccess:
        """The experiment, which the supervisor keeps."""
        return self._experiment

    async def _ask(self, kind: Kind, body: bytes) -> bytes:
        identity = next(self._identities)
        answer = self._answers[identity] = asyncio.get_running_loop().create_future()
        self.tell(Message(kind, identity=identity, body=body))
        try:
            return await asyncio.wait_for(answer, _ANSWER_SECONDS)
        except asyncio.TimeoutError:
            raise NotReadyError("The answer of the other processes did not arrive in time.", retry_after=1) from None
        finally:
            self._answers.pop(identity, None)

    def _receive(self, message: Message) -> None:
        if message.kind in (Kind.ATTACH, Kind.STATUS, Kind.MODEL):
            assert self._on_engine is not None, "nothing is received before the start"
            self._on_engine(message)
        elif message.kind == Kind.COLLECT:
            data = pack_file(registry_to_json(self._metrics.registry))
            self.tell(Message(Kind.COLLECTED, identity=message.identity, files=(data,)))
        elif message.kind in (Kind.METRICS, Kind.ANSWER):
            answer = unpack_file(message.files[0])
            waiting = self._answers.get(message.identity)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        elif message.kind == Kind.GUARD:
            self._experiment.tripped = message.number == 1
        elif (order := self._orders.get(message.kind)) is not None:
            order()
