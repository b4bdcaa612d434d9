"""The layout of a plan's tensors: how many channels of a pixel lie side by side."""

from __future__ import annotations

from tessera.engine import _native
from tessera.engine.backends.cpu.plan import ExecutionPlan
from tessera.engine.backends.cpu.steps import ConvStep
from tessera.engine.backends.cpu.tensor import ELEMENT_BYTES, Blocks, Tensor


def choose_blocks(plan: ExecutionPlan, program: _native.Program) -> Blocks:
    """The block of each element type that suits the plan's convolutions on this CPU."""
    tensors = plan.tensors
    return program.blocks(
        [
            (
                tensors[step.source].dtype,
                tensors[step.source].channels,
                tensors[step.target].channels,
                tensors[step.target].width,
                step.macs,
            )
            for step in plan.steps
            if isinstance(step, ConvStep)
        ]
    )


def lay_out(plan: ExecutionPlan, blocks: Blocks) -> None:
    """Sets the block of every tensor that is not packed, and so how large it is."""
    for tensor in plan.tensors:
        if not tensor.packed:
            tensor.block = blocks[tensor.dtype]
            _spread_planes(tensor)


def _spread_planes(tensor: Tensor) -> None:
    """Adds a row to a frame whose channel blocks lie a multiple of 1 KiB apart.

    A convolution reads the same pixels of all channel blocks; at such distances they would share a few cache sets.
    """
    top, left, bottom, right = tensor.frame
    pixels = (top + tensor.height + bottom) * (left + tensor.width + right)
    if any(tensor.frame) and pixels * tensor.block * ELEMENT_BYTES[tensor.dtype] % 1024 == 0:
        tensor.frame = (top, left, bottom + 1, right)
