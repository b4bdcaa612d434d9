"""Access to the one experiment of a service, wherever it is kept, and how the settings describe it."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Protocol

from tessera.app.routing.events import Event
from tessera.app.routing.experiment import Experiment, ExperimentObserver
from tessera.app.routing.guard import Guard
from tessera.app.routing.router import Router
from tessera.app.served.plan import plan_from
from tessera.app.settings import Settings


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
