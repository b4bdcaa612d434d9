"""Weights that end below 127 where products would not fit 16-bit sums, and the calibration that says so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tessera import engine
from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Node
from tessera.engine.quantize import Calibration, calibrate, quantised_model
from tessera.engine.quantize.measures import sqnr
from tessera.engine.quantize.network.layers import read_network
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.placement.narrowing import NARROW, crowding, narrow_layers
from tessera.engine.quantize.rounding.weights import quantise_weights
from tests.unit.models.tiny import tiny_images, tiny_model
from tests.unit.quantize.networks import constants, nodes, producers, run

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))


@given(hnp.arrays(np.int8, SHAPES, elements=st.integers(-127, 127)))
def test_crowding_is_the_share_of_dwords_with_a_pair_that_exceeds_sixteen_bits(integers: np.ndarray) -> None:
    outputs, inputs, height, width = integers.shape
    doubled = []
    for block in range(0, outputs, 16):
        for four in range(0, inputs, 4):
            for y, x in np.ndindex(height, width):
                dword = integers[block : block + 16, four : four + 4, y, x].astype(int)
                pairs = [dword[:, start : start + 2] for start in range(0, dword.shape[1], 2)]
                sums = [np.abs(pair * (pair * sign > 0)).sum(axis=1).max() for pair in pairs for sign in (1, -1)]
                doubled.append(max(sums) > 128)
    assert crowding(integers) == pytest.approx(np.mean(doubled))


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 300)), elements=st.floats(-10, 10)))
def test_narrow_weights_keep_to_their_end_and_round_to_the_nearest_step(weight: np.ndarray) -> None:
    stored = quantise_weights(weight, np.zeros(len(weight)), np.float32(1.0), NARROW)
    assert np.abs(stored.values.astype(int)).max(initial=0) <= NARROW
    inside = np.abs(weight) <= stored.scales[:, None] * NARROW
    error = np.abs(stored.real() - weight)
    assert (error <= stored.scales[:, None] * 0.5001 + 1e-7)[inside].all()


def test_the_calibration_says_which_layers_are_narrow_and_the_writer_obeys() -> None:
    model, images = tiny_model(), tiny_images(24)
    calibration, _ = calibrate(model, [images], fallback="none")
    assert calibration.weight_limits
    again = Calibration.from_json(calibration.to_json())
    assert again.weight_limits == calibration.weight_limits
    peaks = {}
    quantised = quantised_model(model, again)
    made, values = producers(quantised), constants(quantised)
    for node in nodes(quantised, "Conv"):
        peaks[node.output[0]] = int(np.abs(values[made[node.input[1]].input[0]].astype(int)).max())
    assert all(peaks[layer] <= limit for layer, limit in calibration.weight_limits.items())
    others = [peak for layer, peak in peaks.items() if layer not in calibration.weight_limits]
    assert max(others) == 127
    # Layers that gain nothing: the first, and those that are computed after Winograd.
    first = nodes(quantised, "Conv")[0].output[0]
    threes = [node.output for node in read_network(model).nodes if is_winograd(node)]
    assert threes
    assert not {first, *threes} & set(calibration.weight_limits)


def is_winograd(node: Node) -> bool:
    return node.op == "Conv" and node.attrs["kernel"] == (3, 3) and node.attrs["strides"] == (1, 1)


def test_narrow_weights_cost_little(tmp_path: Path) -> None:
    model, images, unseen = tiny_model(), tiny_images(60), tiny_images(32, seed=9)
    calibration, _ = calibrate(model, [images], fallback="none")
    found = []
    for numbers in (calibration, dataclasses.replace(calibration, weight_limits={})):
        path = tmp_path / "model.onnx"
        path.write_bytes(quantised_model(model, numbers).SerializeToString())
        with engine.load(path, backend="cpu") as session:
            found.append(sqnr(run(model, unseen), session.run(unseen)))
    assert found[0] > found[1] - 3


def test_calibrations_from_before_have_no_narrow_layers() -> None:
    calibration, _ = calibrate(tiny_model(), [tiny_images(4)], fallback="none", bias_correction=False)
    document = json.loads(calibration.to_json())
    del document["weight_limits"]
    assert Calibration.from_json(json.dumps(document)).weight_limits == {}
    assert "weight_limits" not in Calibration.from_json(json.dumps(document)).to_json()


@pytest.mark.parametrize("limits", [[], {"a": 0}, {"a": 128}, {"a": 90.0}, {"a": True}])
def test_impossible_limits_are_refused(limits: object) -> None:
    calibration, _ = calibrate(tiny_model(), [tiny_images(4)], fallback="none", bias_correction=False)
    document = {**json.loads(calibration.to_json()), "weight_limits": limits}
    with pytest.raises(ModelError, match="weight_limits"):
        Calibration.from_json(json.dumps(document))


def test_narrow_layers_were_crowded_and_are_no_longer() -> None:
    graph = read_network(tiny_model())
    for name in narrow_layers(NodeRunners(graph, 1)):
        node = next(node for node in graph.nodes if node.output == name)
        weight = graph.constants[node.inputs[1]]
        full, narrow = (
            quantise_weights(weight, np.zeros(len(weight)), np.float32(1), end).values for end in (127, NARROW)
        )
        assert crowding(full) > crowding(narrow) == 0
