"""Hands an execution plan to the C core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tessera.engine import _native
from tessera.engine.backends.cpu.plan import ExecutionPlan
from tessera.engine.errors import ModelError


def fill_program(program: _native.Program, plan: ExecutionPlan) -> None:
    """Gives an empty program its tensors, its steps in their segments, and its arenas. Weights are packed here.

    Raises:
        ModelError: the C core refuses the plan; the message names the step.
    """
    for tensor in plan.tensors:
        with _naming(tensor.name):
            program.tensor(**tensor.native())
    for segment in plan.segments:
        program.segment(segment.images)
        for step in plan.steps[segment.first : segment.last + 1]:
            with _naming(step.name):
                step.append(program, plan.tensors)
    with _naming("the program"):
        program.finish(plan.arena_bytes, plan.chunk)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turns a refusal of the C core into a ModelError that says what was refused."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"The CPU engine refuses '{name}': {error}.") from error
