"""The one experiment of several processes: kept in the supervisor, told and asked from the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from tessera.app.routing.events import Event, decode_events, encode_events
from tessera.app.routing.experiment import Experiment

MOST_EVENTS = 200  # in one message; some 100 bytes each


class RemoteExperiment:
    """The experiment of another process.

    Events are sent together, `FLUSH` seconds after the first, so that the other process is not woken for each.

    Args:
        send: Sends encoded events there; must not block.
        ask: Sends a question of `SharedExperiment.answer` there and waits for the answer.
    """

    FLUSH = 0.02

    def __init__(self, send: Callable[[bytes], None], ask: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._send = send
        self._ask = ask
        self._events: list[Event] = []
        self.tripped = False  # as the other process told last

    def record(self, event: Event) -> None:
        """Count what happened."""
        self._events.append(event)
        if len(self._events) == 1:
            asyncio.get_running_loop().call_later(self.FLUSH, self.flush)

    def flush(self) -> None:
        """Send what has been counted."""
        for start in range(0, len(self._events), MOST_EVENTS):
            self._send(encode_events(self._events[start : start + MOST_EVENTS]))
        self._events.clear()

    async def snapshot(self) -> dict[str, object]:
        """The state, as JSON."""
        self.flush()
        answer: dict[str, object] = json.loads(await self._ask(b"snapshot"))
        return answer

    async def reset_guard(self, why: str) -> bool:
        """End a trip; returns whether there was one."""
        return await self._ask(b"reset " + why.encode()) == b"true"


class SharedExperiment:
    """The other end of every `RemoteExperiment`: keeps the experiment and tells all of them when the guard changes.

    Args:
        experiment: The state.
        tell: Called with whether the guard is tripped, whenever that changes.
    """

    def __init__(self, experiment: Experiment, tell: Callable[[bool], None]) -> None:
        self._experiment = experiment
        self._tell = tell

    @property
    def tripped(self) -> bool:
        """Whether the guard keeps traffic on the baseline; a new process is told at its start."""
        return self._experiment.tripped

    def record(self, events: bytes) -> None:
        """Count encoded events."""
        before = self.tripped
        for event in decode_events(events):
            self._experiment.record(event)
        self._tell_change(before)

    def answer(self, question: bytes) -> bytes:
        """Answer `snapshot`, or `reset WHY`."""
        if question == b"snapshot":
            return json.dumps(self._experiment.snapshot()).encode()
        before = self.tripped
        reset = self._experiment.reset_guard(question.partition(b" ")[2].decode())
        self._tell_change(before)
        return json.dumps(reset).encode()

    def _tell_change(self, before: bool) -> None:
        if self.tripped != before:
            self._tell(self.tripped)
