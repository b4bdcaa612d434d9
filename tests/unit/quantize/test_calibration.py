"""Histograms, ranges, integer weights and the calibration file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tessera.engine.errors import ModelError
from tessera.engine.quantize import ActivationRange, Calibration
from tessera.engine.quantize.observation.histogram import Histogram
from tessera.engine.quantize.rounding.activations import fake_quantise, restore, store
from tessera.engine.quantize.rounding.weights import quantise_weights

VALUES = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e4, 1e4, width=32))
NUMBERS = st.floats(-1e20, 1e20)


@given(values=VALUES, cut=st.integers(0, 200))
def test_histogram_does_not_depend_on_chunks_or_their_order(values: np.ndarray, cut: int) -> None:
    whole, pieces = Histogram(), Histogram()
    whole.add(values)
    pieces.add(values[cut:])
    pieces.add(values[:cut])
    assert whole.observed_range() == pieces.observed_range()
    if np.any(values):
        assert np.array_equal(whole.centres(), pieces.centres())
    assert np.array_equal(whole.counts(), pieces.counts())
    assert whole.counts().sum() == values.size


@given(values=VALUES)
def test_chosen_ranges_hold_zero_and_lie_within_what_was_seen(values: np.ndarray) -> None:
    histogram = Histogram()
    histogram.add(values)
    low, high = histogram.observed_range()
    for found in (histogram.least_error_range(), histogram.percentile_range(99.9)):
        assert low <= found[0] <= 0 <= found[1] <= high


def test_least_error_range_clips_a_lone_outlier() -> None:
    histogram = Histogram()
    histogram.add(np.abs(np.random.default_rng(0).normal(0, 1, 1_000_000)).astype(np.float32))
    histogram.add(np.array([40.0], np.float32))
    assert histogram.least_error_range()[1] < 20
    assert histogram.observed_range()[1] == 40


def test_least_error_range_keeps_all_of_evenly_spread_values() -> None:
    histogram = Histogram()
    histogram.add(np.linspace(-3, 5, 100_001).astype(np.float32))
    low, high = histogram.least_error_range()
    assert low == pytest.approx(-3, abs=0.05)
    assert high == pytest.approx(5, abs=0.05)


@given(
    weight=hnp.arrays(np.float64, (3, 2, 3, 3), elements=st.floats(-1e3, 1e3)),
    bias=hnp.arrays(np.float64, 3, elements=st.floats(-1e3, 1e3)),
    input_scale=st.floats(1e-4, 10),
)
def test_weights_round_to_the_nearest_step_and_biases_never_overflow(
    weight: np.ndarray, bias: np.ndarray, input_scale: float
) -> None:
    result = quantise_weights(weight, bias, np.float32(input_scale))
    restored = result.values * result.scales[:, None, None, None].astype(np.float64)
    step = result.scales[:, None, None, None].astype(np.float64)
    assert (np.abs(restored - weight) <= step * 0.5001).all()
    assert (np.abs(result.bias.astype(np.int64)) <= 2**30 + 2**8).all()
    restored_bias = result.bias * result.bias_scales.astype(np.float64)
    assert (np.abs(restored_bias - bias) <= result.bias_scales.astype(np.float64)).all()


@given(
    ranges=st.dictionaries(
        st.text(max_size=12), st.tuples(st.floats(-1e6, 0), st.floats(1e-3, 1e6)), min_size=0, max_size=4
    ),
    biases=st.dictionaries(st.text(max_size=12), st.lists(NUMBERS, max_size=5), max_size=3),
)
def test_calibration_text_reads_back_and_is_stable(
    ranges: dict[str, tuple[float, float]], biases: dict[str, list[float]]
) -> None:
    calibration = Calibration(
        {name: ActivationRange(*pair) for name, pair in ranges.items()},
        {name: tuple(values) for name, values in biases.items()},
        images=7,
        model_sha256="ab",
    )
    text = calibration.to_json()
    again = Calibration.from_json(text)
    assert again.to_json() == text
    assert list(again.ranges) == list(ranges)
    for name, found in again.ranges.items():
        assert found.high == pytest.approx(ranges[name][1], rel=1e-5)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        Calibration.from_json(text)


GOOD = {"format": 1, "method": "mse", "images": 3, "model_sha256": "", "ranges": {}, "bias_corrections": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": 2, "noise_limit": 1.0},
        {"format": 2, "noise_limit": None, "gains": {}},
        {"format": 2, "noise_limit": 1.0, "gains": {"x": [0.1, 1, 2]}},
        {"format": 2, "noise_limit": 1.0, "gains": {"x": [0.1, 1, 2, 0.5]}},
        {"format": 2, "noise_limit": 1.0, "gains": {"x": [-0.1, 1, 2, 3]}},
        {"format": 3},
        {"images": -1},
        {"images": True},
        {"method": None},
        {"ranges": []},
        {"ranges": {"x": [0]}},
        {"ranges": {"x": [1, 2]}},
        {"ranges": {"x": [0, 0]}},
        {"ranges": {"x": [0, "1"]}},
        {"ranges": {"x": [0, 10**400]}},
        {"ranges": {"x": [float("-inf"), 1]}},
        {"bias_corrections": {"x": [float("nan")]}},
        {"bias_corrections": {"x": 1.0}},
        {"bias_corrections": None},
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, object]) -> None:
    assert Calibration.from_json(json.dumps(GOOD)).images == 3
    with pytest.raises(ModelError):
        Calibration.from_json(json.dumps({**GOOD, **change}))


def test_saving_names_the_file_in_errors(tmp_path: Path) -> None:
    calibration = Calibration({"x": ActivationRange(-1.0, 2.0)})
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration
    with pytest.raises(ModelError, match=r"nowhere"):
        calibration.save(tmp_path / "nowhere" / "c.json")
    (tmp_path / "c.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"c\.json"):
        Calibration.load(tmp_path / "c.json")


@given(low=st.floats(-1e3, 0), high=st.floats(1e-2, 1e3))
def test_zero_is_represented_exactly(low: float, high: float) -> None:
    scale, zero_point = ActivationRange(low, high).scale_and_zero_point()
    assert 0 <= int(zero_point) <= 255
    assert abs(-int(zero_point) * float(scale) - low) <= float(scale)
    assert abs((255 - int(zero_point)) * float(scale) - high) <= float(scale)


@given(values=VALUES, low=st.floats(-1e3, 0), high=st.floats(1e-2, 1e3))
def test_values_kept_in_eight_bits_are_those_that_quantising_leaves(
    values: np.ndarray, low: float, high: float
) -> None:
    stored_as = ActivationRange(low, high)
    images = values.reshape(1, -1)
    np.testing.assert_array_equal(restore(store(images, stored_as), stored_as), fake_quantise(images, stored_as))
