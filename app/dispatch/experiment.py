"""Access to the one experiment of a service, wherever it is kept, and how the settings describe it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from app.errors import StartupError
from app.routing.events import Event, decode_events, encode_events
from app.routing.experiment import Experiment, ExperimentObserver
from app.routing.guard import Guard
from app.routing.router import BASELINE, Plan, Router
from app.routing.split import parse_split
from app.settings import Settings

MOST_EVENTS = 200  # in one message; some 100 bytes each


class ExperimentAccess(Protocol):
    """The experiment as a process that answers requests sees it. Nothing here makes a request wait."""

    @property
    def tripped(self) -> bool:
        """Whether the guard keeps traffic on the baseline, as far as this process has heard."""

    def record(self, event: Event) -> None:
        """Count what happened."""

    async def snapshot(self) -> dict[str, object]:
        """The state of the whole service's experiment, as JSON."""

    async def reset_guard(self, why: str) -> bool:
        """End a trip; returns whether there was one."""


class LocalExperiment:
    """The experiment in this process.

    Args:
        experiment: Its state.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    @property
    def tripped(self) -> bool:
        """Whether the guard keeps traffic on the baseline."""
        return self._experiment.tripped

    def record(self, event: Event) -> None:
        """Count what happened."""
        self._experiment.record(event)

    async def snapshot(self) -> dict[str, object]:
        """The state, as JSON."""
        return self._experiment.snapshot()

    async def reset_guard(self, why: str) -> bool:
        """End a trip; returns whether there was one."""
        return self._experiment.reset_guard(why)


class RemoteExperiment:
    """The experiment of another process.

    Events are sent together, `FLUSH` seconds after the first, so that the other process is not woken for each.

    Args:
        send: Sends encoded events there; must not block.
        ask: Sends a question of `ExperimentHost.answer` there and waits for the answer.
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


class ExperimentHost:
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


def plan_from(settings: Settings) -> Plan:
    """What the settings ask for."""
    return Plan(
        default=settings.default_variant,
        shares=None if settings.split is None else parse_split(settings.split),
        salt=settings.split_salt,
        shadow_share=settings.effective_shadow_share,
    )


def open_experiment(settings: Settings, variants: Collection[str], observer: ExperimentObserver) -> Experiment:
    """Make the experiment that the settings describe.

    Args:
        settings: The settings.
        variants: The variants of the loaded model.
        observer: Who counts.
    """
    guard = None
    if settings.guard_agreement is not None:
        automatic = settings.guard_recovery == "automatic"
        guard = Guard(settings.guard_agreement, settings.guard_window, automatic=automatic, clock=time.time)
    return Experiment(Router(plan_from(settings)), variants, guard=guard, observer=observer)


def check_plan(settings: Settings, model: str, variants: Collection[str]) -> None:
    """Check that the model has what the settings ask for.

    Raises:
        StartupError: The split names no variant of it, or there are no two variants to compare.
    """
    plan = plan_from(settings)
    unknown = sorted(plan.shares.keys() - set(variants)) if plan.shares else []
    if unknown:
        raise StartupError(
            f"The split names {', '.join(map(repr, unknown))}, and {model} has: {', '.join(sorted(variants))}."
        )
    if plan.shadow_share > 0 and (BASELINE not in variants or len(variants) < 2):
        raise StartupError(f"Shadow mode compares another variant with {BASELINE!r}; {model} does not have both.")
