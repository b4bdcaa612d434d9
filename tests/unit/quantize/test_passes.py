"""What the quantiser learns from its passes over the images does not depend on how they are shared out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tessera.engine.quantize import calibrate
from tessera.engine.quantize.observation.histogram import Histogram
from tessera.engine.quantize.settlement.bias import shift_before_relu
from tests.unit.models.tiny import tiny_images, tiny_model

VALUES = hnp.arrays(np.float32, st.integers(0, 200), elements=st.floats(-1e4, 1e4, width=32))


@given(first=VALUES, second=VALUES, third=VALUES)
@example(first=np.float32([]), second=np.float32([4096]), third=np.float32([-1e-45]))
def test_merged_histograms_are_one_histogram_of_all(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> None:
    whole, merged = Histogram(), Histogram()
    for values in (first, second, third):
        part = Histogram()
        part.add(values)
        merged.merge(part)
        whole.add(values)
    assert merged.observed_range() == whole.observed_range()
    assert np.array_equal(merged.counts(), whole.counts())
    if np.any(np.concatenate([first, second, third])):
        assert np.array_equal(merged.centres(), whole.centres())


def test_neither_threads_nor_batches_change_the_result() -> None:
    model, images = tiny_model(), tiny_images(30)
    expected, _ = calibrate(model, [images], fallback="none", threads=1)
    for threads, batches in ((3, [images]), (2, [images[:7], images[7:8], images[8:]])):
        found, _ = calibrate(model, batches, fallback="none", threads=threads)
        assert found.ranges == expected.ranges
        assert found.bias_corrections.keys() == expected.bias_corrections.keys()
        for layer, shifts in found.bias_corrections.items():
            assert shifts == pytest.approx(expected.bias_corrections[layer], rel=1e-2, abs=1e-4)


@given(
    seed=st.integers(0, 2**32 - 1),
    moved=st.floats(-0.3, 0.3),
)
def test_the_shift_brings_the_mean_behind_the_relu_to_its_target(seed: int, moved: float) -> None:
    sums = np.random.default_rng(seed).normal(0, 1, (4, 2000)).astype(np.float32)
    target = np.maximum(sums + np.float32(moved), 0).mean(axis=1, dtype=np.float64)
    shift = shift_before_relu(sums, target)
    assert shift == pytest.approx(moved, abs=0.01)
