"""Places tensors in one arena by lifetime."""

from __future__ import annotations

from dataclasses import dataclass

from tessera.engine.backends.cpu.plan import ExecutionPlan, Segment
from tessera.engine.backends.cpu.tensor import Tensor


@dataclass(frozen=True)
class Lifetime:
    """First and last step, both included, at which memory must not be shared."""

    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """True when both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass
class _Slot:
    """Memory for one tensor, or for several framed ones of one shape that are never alive together."""

    size: int
    lifetime: Lifetime
    members: list[int]
    offset: int = 0


def place_tensors(plan: ExecutionPlan) -> None:
    """Sets `local`, `images` and `offset` of every tensor, and the plan's arena size, from its segments and chunk.

    Frames are filled once, when the program is made, so memory of a framed tensor is shared only among tensors whose
    frames lie at the same bytes with the same content.
    """
    lifetimes = [_lifetime(plan, index) for index in range(len(plan.tensors))]
    slots: list[_Slot] = []
    framed: dict[tuple[object, ...], list[tuple[_Slot, list[Lifetime]]]] = {}
    whole_run = Lifetime(0, len(plan.steps) - 1)
    for index, tensor in enumerate(plan.tensors):
        size = tensor.images * tensor.image_bytes
        if not tensor.framed:
            slots.append(_Slot(size, lifetimes[index], [index]))
            continue
        alike = framed.setdefault(_frame_key(tensor), [])
        for slot, taken in alike:
            if not any(lifetimes[index].overlaps(other) for other in taken):
                slot.members.append(index)
                taken.append(lifetimes[index])
                break
        else:
            slot = _Slot(size, whole_run, [index])
            slots.append(slot)
            alike.append((slot, [lifetimes[index]]))
    plan.arena_bytes = _assign_offsets(slots)
    for slot in slots:
        for index in slot.members:
            plan.tensors[index].offset = slot.offset


def _frame_key(tensor: Tensor) -> tuple[object, ...]:
    return (
        tensor.dtype,
        tensor.channels,
        tensor.height,
        tensor.width,
        tensor.frame,
        tensor.zero,
        tensor.block,
        tensor.phases,
        tensor.images,
    )


def _lifetime(plan: ExecutionPlan, index: int) -> Lifetime:
    """Also decides whether the tensor is local to a segment, and so how many images it holds."""
    tensor = plan.tensors[index]
    users = [number for number, step in enumerate(plan.steps) if index in step.tensors()]
    first, last = users[0], users[-1]
    home = _segment_of(plan, first)
    tensor.local = home is _segment_of(plan, last)
    tensor.images = min(home.images, plan.chunk) if tensor.local else plan.chunk
    if tensor.local:
        return Lifetime(first, last)
    # A segment runs several times: what crosses its border is alive throughout it.
    return Lifetime(home.first, _segment_of(plan, last).last)


def _segment_of(plan: ExecutionPlan, step: int) -> Segment:
    return next(segment for segment in plan.segments if segment.first <= step <= segment.last)


def _assign_offsets(slots: list[_Slot]) -> int:
    """Greedy by size: the largest slots first, each at the lowest offset that no living neighbour occupies."""
    placed: list[_Slot] = []
    total = 0
    for slot in sorted(slots, key=lambda s: (-s.size, s.members)):
        neighbours = sorted((p for p in placed if p.lifetime.overlaps(slot.lifetime)), key=lambda p: p.offset)
        slot.offset = 0
        for neighbour in neighbours:
            if slot.offset + slot.size <= neighbour.offset:
                break
            slot.offset = max(slot.offset, neighbour.offset + neighbour.size)
        placed.append(slot)
        total = max(total, slot.offset + slot.size)
    return total
