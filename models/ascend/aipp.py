"""The configuration of AIPP, the chip's own image preprocessing: uint8 RGB in, normalised fp16 in NC1HWC0 out.

AIPP computes `(pixel - mean_chn - min_chn) * var_reci_chn`. `mean_chn` is an unsigned byte, the other two are float16,
so a mean with a fraction goes into `min_chn` (CANN, "AIPP configuration"). With pixels of 0..255 and a mean and
deviation in units of 0..1, that is `min_chn = 255 mean` and `var_reci_chn = 1 / (255 std)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.models.preprocessing.image_size import sides
from tessera.models.preprocessing.transform import Preprocessing


def aipp_constants(preprocessing: Preprocessing) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`min_chn` and `var_reci_chn` of the three channels, before the chip rounds them to float16."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return 255.0 * mean, 1.0 / (255.0 * std)


def aipp_configuration(preprocessing: Preprocessing) -> str:
    """The text of the file that `atc --insert_op_conf` reads: static AIPP for uint8 RGB of the network's size."""
    height, width = sides(preprocessing.size)
    minimum, reciprocal = aipp_constants(preprocessing)
    lines = [
        "# Static AIPP: uint8 RGB, NHWC, normalised on the chip as (pixel - min_chn) * var_reci_chn.",
        "# The chip holds both as float16; what it computes with:",
        f"#   min_chn      {_listed(_rounded(minimum))}",
        f"#   var_reci_chn {_listed(_rounded(reciprocal))}",
        "aipp_op {",
        "  aipp_mode: static",
        "  input_format: RGB888_U8",
        f"  src_image_size_w: {width}",
        f"  src_image_size_h: {height}",
        "  crop: false",
        "  csc_switch: false",
        "  rbuv_swap_switch: false",
    ]
    for name, values in (("min_chn", minimum), ("var_reci_chn", reciprocal)):
        lines += [f"  {name}_{channel}: {value:.16g}" for channel, value in enumerate(values)]
    return "\n".join([*lines, "}", ""])


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
    return values.astype(np.float16)


def _listed(values: npt.NDArray[Any]) -> str:
    return ", ".join(f"{float(value):.8g}" for value in values)
