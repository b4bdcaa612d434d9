"""Placement: tensors that are alive together never share memory, whatever the segments."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tessera.engine import _native
from tessera.engine.backends.cpu.arena import place_tensors
from tessera.engine.backends.cpu.plan import ExecutionPlan, Segment
from tessera.engine.backends.cpu.steps import EltwiseStep, InputStep, OutputStep, Step
from tessera.engine.backends.cpu.tensor import Tensor


@st.composite
def plans(draw: st.DrawFn) -> ExecutionPlan:
    """A chain of steps with side branches, cut into random segments."""
    count = draw(st.integers(2, 14))
    tensors = []
    for index in range(count):
        pad = draw(st.sampled_from([0, 0, 1, 2]))
        side = draw(st.sampled_from([1, 7, 14]))
        channels = draw(st.sampled_from([3, 16, 40]))
        block = draw(st.sampled_from([channels, 16, 64]))
        tensors.append(Tensor(f"t{index}", _native.U8, channels, side, side, frame=(pad, pad, pad, pad), block=block))
    steps: list[Step] = [InputStep("in", "Input", target=0)]
    for index in range(1, count):
        other = draw(st.integers(-1, index - 1))
        steps.append(EltwiseStep(f"s{index}", "Add", source=index - 1, other=other, target=index))
    steps.append(OutputStep("out", "Output", source=count - 1))
    plan = ExecutionPlan(tensors, steps, chunk=draw(st.integers(1, 8)))
    first = 0
    while first < len(steps):
        last = draw(st.integers(first, len(steps) - 1))
        plan.segments.append(Segment(first, last, draw(st.integers(1, plan.chunk))))
        first = last + 1
    return plan


def occupied_steps(plan: ExecutionPlan, index: int) -> set[int]:
    """Steps during which the tensor must keep its content, by walking the execution as the C core does."""
    users = [number for number, step in enumerate(plan.steps) if index in step.tensors()]
    homes = [segment for segment in plan.segments if any(segment.first <= user <= segment.last for user in users)]
    if len(homes) == 1:
        return set(range(users[0], users[-1] + 1))
    return set(range(homes[0].first, homes[-1].last + 1))


def bytes_of(tensor: Tensor) -> range:
    return range(tensor.offset, tensor.offset + tensor.images * tensor.image_bytes)


def same_frame(a: Tensor, b: Tensor) -> bool:
    def key(tensor: Tensor) -> tuple[object, ...]:
        return tensor.channels, tensor.height, tensor.frame, tensor.block, tensor.images, tensor.offset

    return key(a) == key(b)


@settings(max_examples=300)
@given(plan=plans())
def test_living_tensors_do_not_overlap(plan: ExecutionPlan) -> None:
    place_tensors(plan)
    for index, tensor in enumerate(plan.tensors):
        memory = bytes_of(tensor)
        assert memory.stop <= plan.arena_bytes
        for other_index, other in enumerate(plan.tensors[:index]):
            shared = range(max(memory.start, bytes_of(other).start), min(memory.stop, bytes_of(other).stop))
            if not shared:
                continue
            assert not occupied_steps(plan, index) & occupied_steps(plan, other_index)
            # Frames are written once: nobody else may ever write over one.
            assert not (tensor.framed or other.framed) or same_frame(tensor, other)


@settings(max_examples=100)
@given(plan=plans())
def test_tensors_hold_the_images_their_segment_needs(plan: ExecutionPlan) -> None:
    place_tensors(plan)
    for index, tensor in enumerate(plan.tensors):
        for number, step in enumerate(plan.steps):
            if index in step.tensors():
                segment = next(s for s in plan.segments if s.first <= number <= s.last)
                assert tensor.images >= (min(segment.images, plan.chunk) if tensor.local else plan.chunk)
