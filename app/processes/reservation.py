"""A request's slots, as its frontend keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tessera.app.processes.messages import Request
from tessera.app.processes.shared_rows import SLOTS_PER_ROW, SlotArea
from tessera.app.scheduling.ticket import HeatMaps, InputType, Outcome


@dataclass(eq=False)
class RemoteReservation:
    """A request's slots, and how far the engine process is with it.

    Attributes:
        identity: Its number, unique in this process.
        first: Its first slot.
        admission: What the engine is asked to admit.
        attempts: How many engine processes have been given the images.
        deaths: How many of them died while they ran one of them.
        core_seconds: What decoding took of a core.
        submitted: Whether its images are in the slots.
        over: Whether the engine has said its last word on it.
        released: Whether its request is over for this process.
        heat_maps: Of its images, once they are there; empty where nobody asked.
        patience: Gives it up when no engine process comes.
    """

    variant: str
    rows: np.ndarray
    done: asyncio.Future[list[Outcome]]
    identity: int
    first: int
    dtype: InputType
    admission: Request
    attempts: int = 0
    deaths: int = 0
    core_seconds: float = 0.0
    submitted: bool = False
    over: bool = False
    released: bool = False
    heat_maps: Sequence[HeatMaps] = ()
    patience: asyncio.TimerHandle | None = None

    @property
    def slots(self) -> int:
        """How many slots it has."""
        return self.admission.images * SLOTS_PER_ROW[self.dtype]

    @property
    def image_slots(self) -> range:
        """The first slot of each of its images."""
        return range(self.first, self.first + self.slots, SLOTS_PER_ROW[self.dtype])

    def outcomes(self, area: SlotArea) -> list[Outcome]:
        """What became of its images.

        Args:
            area: Where its slots are.
        """
        found = [area.read_outcome(slot, self.identity) for slot in self.image_slots]
        if not self.heat_maps:
            return found
        return [replace(each, heat_maps=maps) for each, maps in zip(found, self.heat_maps, strict=True)]

    def suspect(self, area: SlotArea) -> None:
        """Have it run alone from now on if the engine process has died while it ran one of its images.

        Args:
            area: Where its slots are.
        """
        running = [slot for slot in self.image_slots if area.is_running(slot, self.identity)]
        for slot in running:
            area.mark(slot, self.identity, running=False)
        if running:
            self.deaths += 1
            self.admission = self.admission._replace(alone=True)
