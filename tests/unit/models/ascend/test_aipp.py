"""AIPP's constants are those of the network's normalisation, in the units and types of the chip."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.engine.normalisation import Normalisation
from tessera.models.ascend.aipp import aipp_configuration, aipp_constants
from tessera.models.preprocessing.transform import Preprocessing

IMAGENET = Preprocessing()


def fields(text: str) -> dict[str, str]:
    return dict(re.findall(r"^  (\w+): (\S+)$", text, re.MULTILINE))


def test_imagenet_gives_the_constants_that_huaweis_model_zoo_uses() -> None:
    written = fields(aipp_configuration(IMAGENET))
    assert [float(written[f"min_chn_{c}"]) for c in range(3)] == pytest.approx([123.675, 116.28, 103.53], abs=1e-12)
    wanted = [0.0171247538316637, 0.0175070028011204, 0.0174291938997821]
    assert [float(written[f"var_reci_chn_{c}"]) for c in range(3)] == pytest.approx(wanted, rel=1e-14)
    assert written["src_image_size_w"] == written["src_image_size_h"] == "224"
    assert written["rbuv_swap_switch"] == "false", "the service decodes to RGB, the network takes RGB"
    assert not [name for name in written if name.startswith("mean_chn")], "bytes cannot hold a mean with a fraction"


def test_the_file_states_what_float16_makes_of_the_constants() -> None:
    text = aipp_configuration(IMAGENET)
    assert "123.6875, 116.25, 103.5\n" in text
    assert "0.017120361, 0.017501831, 0.017425537\n" in text


def test_float16_costs_less_than_a_pixel_value() -> None:
    """Over all pixel values the chip's input is within 0.01 of the exact one; one pixel step is 0.017."""
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    exact = Normalisation(IMAGENET.mean, IMAGENET.std).apply(pixels)
    # Rounded at every step. Whether the chip keeps more digits between subtraction and multiplication is not
    # documented; if it does, it is closer to the exact result.
    minimum, reciprocal = (constant.astype(np.float16) for constant in aipp_constants(IMAGENET))
    on_chip = ((pixels.astype(np.float16) - minimum) * reciprocal).transpose(0, 3, 1, 2)
    error = np.abs(on_chip.astype(np.float32) - exact)
    assert 0 < error.max() < 0.01


@given(mean=st.tuples(*[st.floats(0, 1)] * 3), std=st.tuples(*[st.floats(0.05, 1)] * 3), size=st.integers(1, 512))
def test_any_normalisation_is_written_back_exactly(
    mean: tuple[float, float, float], std: tuple[float, float, float], size: int
) -> None:
    written = fields(aipp_configuration(Preprocessing((size, size + 32), size, mean, std)))
    for channel in range(3):
        assert float(written[f"min_chn_{channel}"]) / 255 == pytest.approx(mean[channel], rel=1e-14)
        assert 1 / (255 * float(written[f"var_reci_chn_{channel}"])) == pytest.approx(std[channel], rel=1e-14)
    assert (int(written["src_image_size_h"]), int(written["src_image_size_w"])) == (size, size + 32)
