"""y = ReLU(conv2d(x, filter) + bias), as a static TBE operator of CANN 6.0 and later.

fp16 in, fp32 sums in L0C, fp16 out. On chips with a bias table (310B, 910B) the bias is added to the sums in fp32; on
310, 310P and 910 CANN rounds them to fp16 first and adds it in UB (8.1, tbe/dsl/compute/conv_compute.py). CANN's own
schedule for convolutions cuts the tiles; the ReLU behind the convolution is scheduled with it, as in fused Conv2D +
ReLU, so the sums leave L0C once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tbe import tvm
from tbe.common.utils import para_check
from tbe.dsl import auto_schedule, build, vrelu
from tbe.dsl.compute.conv_compute import conv

# CANN imports this file as a part of a package or, in some versions, by its name alone.
if __package__:
    from .geometry import C0, ceil_div, fractal_z_shape, nc1hwc0_shape
else:
    from geometry import C0, ceil_div, fractal_z_shape, nc1hwc0_shape  # type: ignore[import-not-found, no-redef]


def convolution_parameters(
    x: Sequence[int], weights: Sequence[int], strides: Sequence[int], pads: Sequence[int], kernel_name: str
) -> dict[str, Any]:
    """The parameters of `conv` that do not depend on tensors, for one group and no dilation.

    Args:
        x: [N, C, H, W].
        weights: [O, I, Kh, Kw].
        strides: of the axes of `x`; those of N and C are 1.
        pads: top, bottom, left, right.
        kernel_name: name of the kernel.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if len(x) != 4 or len(weights) != 4 or x[1] != weights[1]:
        raise ValueError(f"x {list(x)} and filter {list(weights)} must be 4-dimensional with the same channels")
    if len(strides) != 4 or list(strides[:2]) != [1, 1] or len(pads) != 4:
        raise ValueError(f"strides {list(strides)} must be [1, 1, h, w], pads {list(pads)} 4 numbers")
    return {
        "offset_w_tensor": None,
        "pad_h": [pads[0], pads[1]],
        "pad_w": [pads[2], pads[3]],
        "stride_h": strides[2],
        "stride_w": strides[3],
        "dilate_h": 1,
        "dilate_w": 1,
        "filter_h": weights[2],
        "filter_w": weights[3],
        "offset_x": 0,
        "groups": 1,
        "group": 1,
        "enlarge": 1,
        "group_opt": 1,
        "c1_opt": ceil_div(x[1], C0),
        "cout1_opt": ceil_div(weights[0], C0),
        "res_dtype": "float16",
        "fusion_para": {"fmap_l1_addr_flag": 0, "fmap_l1_valid_size": -1, "slice_offset": (0, 0, 0, 0, 0)},
        "kernel_name": kernel_name,
        "a_shape": list(nc1hwc0_shape(tuple(x))),
        "weight_fracz_shape": list(fractal_z_shape(tuple(weights))),
        "weight_ori_shape_nchw": list(weights),
    }


@para_check.check_op_params(
    para_check.REQUIRED_INPUT,
    para_check.REQUIRED_INPUT,
    para_check.REQUIRED_INPUT,
    para_check.REQUIRED_OUTPUT,
    para_check.REQUIRED_ATTR_LIST_INT,
    para_check.REQUIRED_ATTR_LIST_INT,
    para_check.KERNEL_NAME,
)  # type: ignore[untyped-decorator, unused-ignore]  # CANN has no types
def conv_bias_relu(
    x: dict[str, Any],
    filter: dict[str, Any],  # the operator's own name for it
    bias: dict[str, Any],
    y: dict[str, Any],
    strides: Sequence[int],
    pads: Sequence[int],
    kernel_name: str = "conv_bias_relu",
) -> None:
    """Build the kernel for one shape. CANN calls this with descriptions of the tensors while it compiles a model.

    Args:
        x: NC1HWC0, fp16.
        filter: FRACTAL_Z, fp16.
        bias: ND [O], fp16.
        y: NC1HWC0, fp16.
        strides: [1, 1, h, w].
        pads: top, bottom, left, right.
        kernel_name: name of the kernel.
    """
    parameters = convolution_parameters(x["ori_shape"], filter["ori_shape"], strides, pads, kernel_name)
    with tvm.target.cce():
        image = _placeholder(parameters["a_shape"], "x", x, "NC1HWC0")
        weights = _placeholder(parameters["weight_fracz_shape"], "filter", filter, "FRACTAL_Z")
        biases = tvm.placeholder((filter["ori_shape"][0],), name="bias", dtype="float16")
        sums = conv(
            image,
            weights,
            para_dict=dict(parameters, bias_tensor=biases),
            optim_dict={"c0_optim_flg": False, "use_v200_c04_flg": False, "v220_c04_mode": "disabled"},
        )
        result = vrelu(sums)
        schedule = auto_schedule(result)
    build(
        schedule,
        {
            "name": kernel_name,
            "tensor_list": [image, weights, biases, result],
            "print_ir": False,
            "need_build": True,
            "dummy_placeholder": True,
        },
    )


def _placeholder(shape: Sequence[int], name: str, described: dict[str, Any], layout: str) -> Any:
    attributes = {"ori_shape": list(described["ori_shape"]), "ori_format": "NCHW", "format": layout}
    return tvm.placeholder(tuple(shape), name=name, dtype="float16", attrs=attributes)
