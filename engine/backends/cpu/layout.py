"""The layout of a plan's tensors: how many channels of a pixel lie side by side, and in which order pixels do."""

from __future__ import annotations

from typing import TypeGuard

from tessera.engine import _native
from tessera.engine.backends.cpu.plan import ExecutionPlan
from tessera.engine.backends.cpu.steps import ConvStep, Step
from tessera.engine.backends.cpu.tensor import ELEMENT_BYTES, Blocks, Frame, Tensor

# What a matrix unit takes: blocks of 64 bytes on both sides, outputs by 64 channels, pixels by 16.
_MATRIX_BLOCKS = {_native.U8: 64, _native.BF16: 32}
_MATRIX_CHANNELS = 64
_MATRIX_ROWS = 16


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


def lay_out(plan: ExecutionPlan, blocks: Blocks, *, matrix_unit: bool) -> None:
    """Sets the block of every tensor that is not packed, and so how large it is.

    Args:
        plan: as the planner made it.
        blocks: see `choose_blocks`.
        matrix_unit: whether the program runs on one; then tensors that a stride of 2 reads may lie in phases.
    """
    for tensor in plan.tensors:
        if not tensor.packed:
            tensor.block = blocks[tensor.dtype]
    if matrix_unit:
        for index in range(len(plan.tensors)):
            _try_phases(plan, index)
    for tensor in plan.tensors:
        if not tensor.packed and not tensor.phases:
            _spread_planes(tensor)


def _spread_planes(tensor: Tensor) -> None:
    """Adds a row to a frame whose channel blocks lie a multiple of 1 KiB apart.

    A convolution reads the same pixels of all channel blocks; at such distances they would share a few cache sets.
    """
    top, left, bottom, right = tensor.frame
    pixels = (top + tensor.height + bottom) * (left + tensor.width + right)
    if any(tensor.frame) and pixels * tensor.block * ELEMENT_BYTES[tensor.dtype] % 1024 == 0:
        tensor.frame = (top, left, bottom + 1, right)


def _try_phases(plan: ExecutionPlan, index: int) -> None:
    """Stores a tensor in phases where all who write and read it can do so, and its readers then multiply fewer tiles.

    A tile is 16 pixels at equal distances. Two pixels apart, these end with a row; in phases they lie side by side, and
    run on into the next row. Writers put pixels anywhere at no cost.
    """
    tensors, tensor = plan.tensors, plan.tensors[index]
    users = [step for step in plan.steps if index in step.tensors()]
    convs = [step for step in users if _on_matrix_unit(step, tensors)]
    readers = [step for step in convs if step.source == index]
    if len(convs) < len(users) or not all(_steps_in_phases(step) for step in readers):
        return
    if all(step.strides == (1, 1) for step in readers):
        return
    frame, products = tensor.frame, _products(readers, tensors)
    tensor.phases, tensor.frame = True, _frame_of(readers, tensors)
    if _products(readers, tensors) >= products:
        tensor.phases, tensor.frame = False, frame


def _on_matrix_unit(step: Step, tensors: list[Tensor]) -> TypeGuard[ConvStep]:
    """Whether the C core runs a step on the matrix unit; see `takes` of conv/matrix.c."""
    if not isinstance(step, ConvStep) or step.groups > 1:
        return False
    source, target = tensors[step.source], tensors[step.target]
    block = _MATRIX_BLOCKS.get(source.dtype, 0)
    written = [target] if step.other < 0 else [target, tensors[step.other]]
    return (source.packed or (source.block == block and source.channels % block == 0)) and all(
        tensor.dtype == source.dtype and tensor.block == block and tensor.channels % _MATRIX_CHANNELS == 0
        for tensor in written
    )


def _steps_in_phases(step: ConvStep) -> bool:
    """Whether it goes two pixels on, or reads each pixel by itself."""
    if step.strides == (2, 2):
        return step.dilations == (1, 1)
    return step.strides == (1, 1) and step.weights.shape[2:] == (1, 1) and step.pads == (0, 0)


def _frame_of(readers: list[ConvStep], tensors: list[Tensor]) -> Frame:
    """What is read around the tensor: steps of two pixels may leave out padding below and at the right."""
    top, left = (max(step.pads[axis] for step in readers) for axis in range(2))
    below, right = 0, 0
    for step in readers:
        source, target = tensors[step.source], tensors[step.target]
        height, width = step.weights.shape[2:]
        below = max(below, (target.height - 1) * step.strides[0] + height - step.pads[0] - source.height)
        right = max(right, (target.width - 1) * step.strides[1] + width - step.pads[1] - source.width)
    return top, left, below, right


def _products(readers: list[ConvStep], tensors: list[Tensor]) -> int:
    """Products of tiles that readers of one tensor need for one image, but for a factor that all of them share."""
    return sum(_tiles(step, tensors) * step.weights[:, 0].size for step in readers)


def _tiles(step: ConvStep, tensors: list[Tensor]) -> int:
    """Tiles of pixels of one image, as conv/matrix_tiles.c cuts them."""
    source, target = tensors[step.source], tensors[step.target]
    apart = 2 if source.phases else 1
    if apart < step.strides[0]:
        return target.height * _ceil_div(target.width, _MATRIX_ROWS)
    top, left, bottom, right = source.frame
    rows = _ceil_div(top, apart) + _ceil_div(source.height + bottom, apart)
    pitch = _ceil_div(left, apart) + _ceil_div(source.width + right, apart)
    last = 4 * rows * pitch if apart > step.strides[0] else (target.height - 1) * pitch + target.width
    return _ceil_div(last, _MATRIX_ROWS)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
