"""What pruning by photos chooses by: moments of what convolutions read, and shares of layers from curves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tessera.engine.pruning import Pruner
from tessera.engine.pruning.moments import observe_moments
from tessera.engine.pruning.sensitivity import Curve, allot
from tessera.engine.quantize.network.layers import read_network
from tests.unit.models.tiny import tiny_images, tiny_model
from tests.unit.quantize.networks import run


@pytest.mark.parametrize(
    "attributes", ["strides=[2,1], pads=[1,0,2,1]", "dilations=[1,2], pads=[2,2,2,2]", "strides=[1,3]"]
)
def test_moments_tell_mean_and_variance_of_what_a_convolution_makes(attributes: str) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        net (float[N, 4, 9, 11] input) => (float[N, 6, H, W] output) <float[6, 4, 3, 3] w> {{
            output = Conv <kernel_shape=[3,3], {attributes}> (input, w)
        }}"""
    )
    random = np.random.default_rng(1)
    weights = random.normal(size=(6, 4, 3, 3)).astype(np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    images = random.normal(1.0, 2.0, (5, 4, 9, 11)).astype(np.float32)
    graph = read_network(model)
    (moments,) = observe_moments(graph, graph.nodes, images, 2, lambda stage, fraction: None).values()
    results = run(model, images)
    rows = weights.transpose(0, 2, 3, 1).reshape(6, -1).astype(np.float64)
    assert moments.outputs == results[0, 0].size
    assert moments.seen == results[:, 0].size
    np.testing.assert_allclose(rows @ moments.mean, results.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    variances = np.sum((rows @ moments.covariance) * rows, axis=1)
    np.testing.assert_allclose(variances, results.var(axis=(0, 2, 3)), rtol=1e-3)


def test_layers_that_bear_more_lose_more_and_the_share_is_reached() -> None:
    curves = {"bears": Curve((1e-4, 4e-4)), "same": Curve((1e-4, 4e-4)), "does not": Curve((1e-2, 4e-2))}
    prices = {"bears": 10.0, "same": 10.0, "does not": 20.0}
    for share in (0.1, 0.4, 0.9, 1.0):
        parts = allot(curves, prices, share)
        saved = sum(prices[name] * part for name, part in parts.items())
        assert saved == pytest.approx(share * 40)
        assert parts["bears"] == pytest.approx(parts["same"])
        assert parts["bears"] >= parts["does not"]


def test_a_layer_that_costs_nothing_goes_first() -> None:
    curves = {"free": Curve((0.0, 0.0)), "dear": Curve((1e-2, 4e-2))}
    parts = allot(curves, {"free": 1.0, "dear": 1.0}, 0.5)
    assert parts["free"] == pytest.approx(1.0)
    assert parts["dear"] == pytest.approx(0.0, abs=1e-3)


def test_a_layer_of_one_block_is_tried_too() -> None:
    """What a quarter of it would be is nothing, and nothing costs nothing."""
    curves = Pruner(tiny_model(), tiny_images(12)).curves
    assert curves["layer1.0.bn1"].shares == (1.0, 1.0)
    assert min(curves["layer1.0.bn1"].noise) > 1e-3
    assert curves["layer1.1.bn1"].shares == (0.25, 0.5)
