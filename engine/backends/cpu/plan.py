"""The execution plan: what runs in which order, on which tensors, and where those lie in the arena."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tessera.engine.backends.cpu.steps import Step
from tessera.engine.backends.cpu.tensor import Tensor


@dataclass
class Segment:
    """Consecutive steps that run for `images` images before the next segment starts."""

    first: int
    last: int
    images: int


@dataclass
class ExecutionPlan:
    """Everything the C core needs.

    Attributes:
        tensors: all activation tensors.
        steps: in running order, an InputStep first, an OutputStep last.
        segments: a partition of the steps.
        chunk: images that one pass may hold.
        arena_bytes: bytes of activations of one thread.
    """

    tensors: list[Tensor]
    steps: list[Step]
    segments: list[Segment] = field(default_factory=list)
    chunk: int = 1
    arena_bytes: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(step.macs for step in self.steps)

    def main_type(self) -> int | None:
        """The element type that most multiply-accumulates run in; None without any."""
        macs: Counter[int] = Counter()
        for step in self.steps:
            if step.macs:
                macs[self.tensors[step.source].dtype] += step.macs
        return max(macs, key=macs.__getitem__, default=None)
