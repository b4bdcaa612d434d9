"""How many images run through a segment at a time: what caches hold, and on a matrix unit what its L2 does."""

from __future__ import annotations

import pytest

from tessera.engine import _native
from tessera.engine.backends.cpu.layout import lay_out
from tessera.engine.backends.cpu.plan import ExecutionPlan
from tessera.engine.backends.cpu.planner import plan_graph
from tessera.engine.backends.cpu.segments import cut_segments
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import read_model
from tessera.models.registry import open_model
from tests.servers import CACHE

CHUNK = 16
MATRIX_BLOCKS = {_native.U8: 64, _native.BF16: 32, _native.F32: _native.GROUP}


@pytest.fixture(scope="module")
def plan() -> ExecutionPlan:
    model = open_model(cache=CACHE)
    planned = plan_graph(lower(read_model(model.variants["optimised"].path)), "fp32", None)
    lay_out(planned, MATRIX_BLOCKS, matrix_unit=True)
    return planned


def images_at(plan: ExecutionPlan, size: int) -> set[int]:
    """Images at a time of the convolutions that write maps of this size and are within a stage."""
    return {
        segment.images
        for segment in plan.segments
        for step in plan.steps[segment.first : segment.last + 1]
        if step.macs and step.other >= 0 and plan.tensors[step.target].width == size
    }


def test_a_matrix_unit_gets_the_images_that_its_l2_holds(plan: ExecutionPlan) -> None:
    cut_segments(plan, CHUNK, matrix_unit=True, l2_bytes=2 << 20)
    assert [images_at(plan, size) for size in (56, 28)] == [{1}, {1}]
    assert images_at(plan, 14) <= {4, 5, 6, 7, 8, 9}
    assert images_at(plan, 7) == {CHUNK}  # tiles across images need them


def test_a_larger_l2_takes_more_images(plan: ExecutionPlan) -> None:
    cut_segments(plan, CHUNK, matrix_unit=True, l2_bytes=2 << 20)
    small = [min(images_at(plan, size)) for size in (56, 28, 14, 7)]
    cut_segments(plan, CHUNK, matrix_unit=True, l2_bytes=8 << 20)
    large = [min(images_at(plan, size)) for size in (56, 28, 14, 7)]
    assert all(before <= after for before, after in zip(small, large, strict=True))
    assert small != large


def test_without_one_the_size_of_l2_does_not_count(plan: ExecutionPlan) -> None:
    cut_segments(plan, CHUNK, matrix_unit=False, l2_bytes=1 << 18)
    small = list(plan.segments)
    cut_segments(plan, CHUNK, matrix_unit=False, l2_bytes=8 << 20)
    assert small == plan.segments
