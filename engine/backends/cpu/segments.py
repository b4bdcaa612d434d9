"""Cuts a plan into segments that run micro-batch by micro-batch, so that activations stay in cache."""

from __future__ import annotations

from tessera.engine.backends.cpu.plan import ExecutionPlan, Segment
from tessera.engine.machine import cache_sizes

# Early layers have activations as large as a core's L2 cache and few weights: they run image by image. Late layers have
# small activations and many weights: they run over several images for each pass over the weights.
_CACHE_BYTES = 2 << 20

# A matrix unit is so fast that it waits for bytes from behind L2, of which this part is free for activations.
_FREE_L2 = 0.65
_USUAL_L2_BYTES = 2 << 20
_FILLED_TILE = 2 / 3


def cut_segments(plan: ExecutionPlan, chunk: int, *, matrix_unit: bool, l2_bytes: int | None = None) -> None:
    """Sets the plan's chunk and segments.

    A cut is allowed wherever a single tensor crosses, for example between two residual blocks. Between two cuts the
    micro-batch is what fits the cache; neighbours with the same micro-batch are joined.

    Args:
        plan: with the layout of its tensors.
        chunk: images that one pass through all segments may hold.
        matrix_unit: most convolutions run on one.
        l2_bytes: of a core; None: this machine's.
    """
    l2 = l2_bytes or cache_sizes().get("L2", _USUAL_L2_BYTES)
    plan.chunk = chunk
    plan.segments = []
    first = 0
    for last in _cuts(plan):
        peak = max(1, _peak_bytes(plan, first, last))
        images = max(1, min(chunk, _matrix_images(peak, l2, chunk) if matrix_unit else _CACHE_BYTES // peak))
        if plan.segments and plan.segments[-1].images == images:
            plan.segments[-1].last = last
        else:
            plan.segments.append(Segment(first, last, images))
        first = last + 1


def _matrix_images(peak: int, l2_bytes: int, chunk: int) -> int:
    """One image where two do not fit L2. Else weights come from behind it, and twice of it in images shares their way.

    Tiles may lie across images (engine/csrc/conv/matrix.c): where most of a tile would be filled, all of it is.
    """
    if 2 * peak > _FREE_L2 * l2_bytes:
        return 1
    images = 2 * l2_bytes // peak
    return chunk if images >= _FILLED_TILE * chunk else images


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
