"""Hands an execution plan to the C core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from engine import _native
from engine.backends.cpu.plan import (
    ConvStep,
    EltwiseStep,
    ExecutionPlan,
    FlattenStep,
    GlobalAverageStep,
    InputStep,
    OutputStep,
    PoolStep,
    SoftmaxStep,
    Step,
)
from engine.errors import ModelError


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
                _append(program, plan, step)
    with _naming("the program"):
        program.finish(plan.arena_bytes, plan.chunk)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turns a refusal of the C core into a ModelError that says what was refused."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"The CPU engine refuses '{name}': {error}.") from error


def _append(program: _native.Program, plan: ExecutionPlan, step: Step) -> None:
    if isinstance(step, ConvStep):
        _append_conv(program, plan, step)
    elif isinstance(step, InputStep):
        tensor = plan.tensors[step.target]
        shape = (tensor.channels, tensor.height, tensor.width)
        pixels = None if step.pixel_values is None else np.ascontiguousarray(step.pixel_values)
        program.input(step.target, shape, tensor.scale, pixels, 1 if pixels is None else pixels.itemsize)
    elif isinstance(step, PoolStep):
        program.pool(
            step.source,
            step.target,
            step.kernel,
            step.strides,
            step.dilations,
            step.pads,
            step.average,
            step.count_padding,
            step.scale,
        )
    elif isinstance(step, GlobalAverageStep):
        program.global_average(step.source, step.target, step.scale)
    elif isinstance(step, EltwiseStep):
        program.eltwise(step.source, step.other, step.target, step.source_scale, step.other_scale, *step.clamp)
    elif isinstance(step, FlattenStep):
        program.flatten(step.source, step.target)
    elif isinstance(step, SoftmaxStep):
        program.softmax(step.source, step.target)
    elif isinstance(step, OutputStep):
        program.output(step.source, plan.tensors[step.source].elements)
    else:
        raise TypeError(f"no program step for {type(step).__name__}")


def _append_conv(program: _native.Program, plan: ExecutionPlan, step: ConvStep) -> None:
    outputs, _, height, width = step.weights.shape
    program.conv(
        source=step.source,
        target=step.target,
        residual=step.other,
        kernel=(height, width),
        strides=step.strides,
        dilations=step.dilations,
        pads=step.pads,
        groups=step.groups,
        weights=np.ascontiguousarray(step.weights),
        bias=np.ascontiguousarray(step.bias),
        scale=None if step.scale is None else np.ascontiguousarray(step.scale),
        residual_scale=step.residual_scale,
        low=step.clamp[0],
        high=step.clamp[1],
        filter_elements=int(step.weights[0].size),
        outputs=outputs,
        integer=plan.tensors[step.source].dtype == _native.U8,
    )
