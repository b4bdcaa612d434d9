"""Cuts a plan into segments that run micro-batch by micro-batch, so that activations stay in cache."""

from __future__ import annotations

from tessera.engine.backends.cpu.plan import ExecutionPlan, Segment

# Early layers have activations as large as a core's L2 cache and few weights: they run image by image. Late layers have
# small activations and many weights: they run over several images for each pass over the weights.
_CACHE_BYTES = 2 << 20


def cut_segments(plan: ExecutionPlan, chunk: int) -> None:
    """Sets the plan's chunk and segments.

    A cut is allowed wherever a single tensor crosses, for example between two residual blocks. Between two cuts the
    micro-batch is what fits the cache; neighbours with the same micro-batch are joined.
    """
    plan.chunk = chunk
    plan.segments = []
    first = 0
    for last in _cuts(plan):
        images = max(1, min(chunk, _CACHE_BYTES // max(1, _peak_bytes(plan, first, last))))
        if plan.segments and plan.segments[-1].images == images:
            plan.segments[-1].last = last
        else:
            plan.segments.append(Segment(first, last, images))
        first = last + 1


def _cuts(plan: ExecutionPlan) -> list[int]:
    """Steps after which at most one tensor is still needed; always ends with the last step."""
    last_use = {index: number for number, step in enumerate(plan.steps) for index in step.tensors()}
    alive: set[int] = set()
    cuts = []
    for number, step in enumerate(plan.steps):
        alive.update(step.tensors())
        alive = {index for index in alive if last_use[index] > number}
        if len(alive) <= 1:
            cuts.append(number)
    return cuts


def _peak_bytes(plan: ExecutionPlan, first: int, last: int) -> int:
    """The most bytes of one image that a single step between `first` and `last` touches."""
    return max(
        sum(plan.tensors[index].image_bytes for index in step.tensors()) for step in plan.steps[first : last + 1]
    )
