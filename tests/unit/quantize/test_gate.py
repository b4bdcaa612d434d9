"""The gate: what chance does to a few photos neither fails a good network nor passes a bad one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tessera.engine.quantize import Gate, calibrate
from tessera.engine.quantize.measures import SIGNIFICANCE, is_below
from tessera.models.evaluation.intervals import binomial_at_most
from tests.unit.models.tiny import tiny_images, tiny_model
from tests.unit.quantize.networks import run

IMAGES, DEMANDED = 96, 0.98


def fails(true_agreement: float, draws: int = 20_000) -> float:
    """Share of draws of 96 photos in which a network of this agreement is judged to be below 98 %."""
    agreeing = np.random.default_rng(1).binomial(IMAGES, true_agreement, draws)
    verdicts = {count: is_below(count, IMAGES, DEMANDED) for count in range(IMAGES + 1)}
    return float(np.mean([verdicts[count] for count in agreeing]))


def test_a_good_network_rarely_fails_and_a_bad_one_rarely_passes() -> None:
    assert fails(0.99) < 0.005  # exactly 0.29 %, where demanding 98 % of the photos themselves fails 25 %
    assert fails(DEMANDED) < SIGNIFICANCE  # 4.4 %
    assert fails(0.90) > 0.95  # 96.9 %
    assert fails(0.95) > 0.5  # 52.7 %: 96 photos can tell no more at this significance


@pytest.mark.parametrize("images", [1, 7, 96, 236, 500])
@pytest.mark.parametrize("demanded", [0.0, 0.5, 0.98, 1.0])
def test_the_verdict_is_the_exact_binomial_test(images: int, demanded: float) -> None:
    for agreeing in range(images + 1):
        proven = binomial_at_most(agreeing, images, demanded) < SIGNIFICANCE
        assert is_below(agreeing, images, demanded) == proven
    assert not is_below(images, images, demanded)


def with_classes_alike(images: np.ndarray) -> onnx.ModelProto:
    """A network whose classes are equally likely on these images, so that eight bits change the first one."""
    model = tiny_model()
    means = run(model, images).mean(axis=0)
    for tensor in model.graph.initializer:
        if tensor.name == "fc.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) - means, tensor.name))
    return model


def test_no_tensor_is_kept_in_floating_point_for_what_chance_explains() -> None:
    images = tiny_images(160)
    model = with_classes_alike(images)
    first = calibrate(model, [images], gate=Gate(sqnr=1.0, agreement=0.0))[1]
    reached = first.rounds[-1].agreement
    assert reached is not None
    assert 0.5 < reached < 1  # else this test would not tell anything
    _, by_chance = calibrate(model, [images], gate=Gate(sqnr=1.0, agreement=reached + 0.005))
    assert by_chance.met
    assert len(by_chance.rounds) == 1
    _, proven = calibrate(model, [images], gate=Gate(sqnr=1.0, agreement=0.9999))
    assert len(proven.rounds) > 1
    assert proven.floats
