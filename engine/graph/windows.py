"""Window attributes of convolutions and pools: defaults, auto_pad and ceil_mode resolved to plain numbers."""

from __future__ import annotations

from typing import Any

from tessera.engine.errors import ModelError
from tessera.engine.graph.geometry import ceil_overhang, same_padding, span
from tessera.engine.graph.ir import Graph, Shape
from tessera.engine.graph.source import Source
from tessera.wording import counted

Pair = tuple[int, int]


def conv_window(source: Source, graph: Graph) -> dict[str, Any]:
    """Attributes kernel, strides, pads (top, left, bottom, right) and dilations of a Conv.

    Raises:
        UnsupportedOperatorError: the convolution is not two-dimensional.
        ModelError: the attributes contradict each other or the weights.
    """
    shape = _image_shape(source, graph)
    weights = graph.values[source.input(1)].shape
    if len(weights) != 4 or weights[2] is None or weights[3] is None:
        raise ModelError(
            f"{source.describe()}: its weights have shape {list(weights)}; [out, in, height, width] is expected."
        )
    kernel = (weights[2], weights[3])
    if _pair(source, "kernel_shape", kernel, smallest=1) != kernel:
        raise ModelError(f"{source.describe()}: kernel_shape differs from its weights' shape {list(weights)}.")
    strides, dilations = _pair(source, "strides", (1, 1), 1), _pair(source, "dilations", (1, 1), 1)
    top, left, bottom, right = _pads(source, shape, kernel, strides, dilations)
    return {"kernel": kernel, "strides": strides, "pads": (top, left, bottom, right), "dilations": dilations}


def pool_window(source: Source, graph: Graph) -> dict[str, Any]:
    """Attributes kernel, strides, pads (top, left, bottom, right), dilations and overhang of a pool.

    `overhang` (bottom, right) is the part of `pads` that only ceil_mode added: an average that counts padding does not
    count it.

    Raises:
        UnsupportedOperatorError: the pool is not two-dimensional, or runtimes disagree on what it means.
        ModelError: the attributes contradict each other.
    """
    shape = _image_shape(source, graph)
    if "kernel_shape" not in source.attributes:
        raise ModelError(f"{source.describe()} does not say its kernel_shape.")
    kernel = _pair(source, "kernel_shape", (1, 1), smallest=1)
    strides, dilations = _pair(source, "strides", (1, 1), 1), _pair(source, "dilations", (1, 1), 1)
    top, left, bottom, right = _pads(source, shape, kernel, strides, dilations)
    for size, dilation, before in zip(shape[2:], dilations, (top, left), strict=True):
        _refuse_ambiguous(source, size, dilation, before)
    if max(top, bottom) >= kernel[0] or max(left, right) >= kernel[1]:
        raise ModelError(
            f"{source.describe()}: padding {[top, left, bottom, right]} must be smaller than its kernel {list(kernel)}."
        )
    overhang = (0, 0)
    if source.attributes.get("ceil_mode", 0):
        height, width = _known(source, shape, "ceil_mode")
        overhang = (
            ceil_overhang(height, kernel[0], strides[0], dilations[0], top, bottom),
            ceil_overhang(width, kernel[1], strides[1], dilations[1], left, right),
        )
    pads = (top, left, bottom + overhang[0], right + overhang[1])
    return {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations, "overhang": overhang}


def _refuse_ambiguous(source: Source, size: int | None, dilation: int, before: int) -> None:
    """Refuses pools along one dimension on which ONNX is silent and runtimes differ."""
    if dilation > 1 and before > 0 and (size is None or dilation > size):
        raise source.refuse(f"with dilation {dilation}, whole windows could lie in the padding and have no result.")
    if dilation > 1 and _mode(source).startswith("SAME"):
        raise source.refuse("auto_pad SAME with dilation is computed differently by different runtimes.")


def _mode(source: Source) -> str:
    mode: bytes = source.attributes.get("auto_pad", b"NOTSET")
    return mode.decode(errors="replace")


def _image_shape(source: Source, graph: Graph) -> Shape:
    shape = graph.values[source.input(0)].shape
    if len(shape) in (3, 5):
        raise source.refuse(
            f"it is {len(shape) - 2}-dimensional; only two-dimensional ones on [N, C, H, W] are supported."
        )
    if len(shape) != 4:
        raise ModelError(
            f"{source.describe()}: its input has {counted(len(shape), 'dimension')}; [N, C, H, W] is expected."
        )
    return shape


def _numbers(source: Source, attribute: str, default: tuple[int, ...], smallest: int) -> tuple[int, ...]:
    values = tuple(int(value) for value in source.attributes.get(attribute, default))
    if len(values) != len(default) or min(values) < smallest:
        raise ModelError(
            f"{source.describe()}: {attribute} is {list(values)}; "
            f"{len(default)} numbers of at least {smallest} are expected."
        )
    return values


def _pair(source: Source, attribute: str, default: Pair, smallest: int) -> Pair:
    first, second = _numbers(source, attribute, default, smallest)
    return first, second


def _known(source: Source, shape: Shape, attribute: str) -> Pair:
    if shape[2] is None or shape[3] is None:
        raise source.refuse(f"{attribute} needs a fixed input height and width.")
    return shape[2], shape[3]


def _pads(source: Source, shape: Shape, kernel: Pair, strides: Pair, dilations: Pair) -> tuple[int, int, int, int]:
    mode = _mode(source)
    if mode == "NOTSET":
        top, left, bottom, right = _numbers(source, "pads", (0, 0, 0, 0), smallest=0)
        return top, left, bottom, right
    if mode == "VALID":
        return 0, 0, 0, 0
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"{source.describe()}: auto_pad '{mode}' is unknown.")
    height, width = _known(source, shape, f"auto_pad {mode}")
    for size, taps, stride, dilation in zip((height, width), kernel, strides, dilations, strict=True):
        # The padding would come out as -2 or less: some runtimes then cut the image, others take it as 0.
        if (-(-size // stride) - 1) * stride + span(taps, dilation) - size < -1:
            raise source.refuse(
                f"auto_pad {mode} with so large a stride is computed differently by different runtimes."
            )
    top, bottom = same_padding(height, kernel[0], strides[0], dilations[0], lower=mode == "SAME_LOWER")
    left, right = same_padding(width, kernel[1], strides[1], dilations[1], lower=mode == "SAME_LOWER")
    return top, left, bottom, right
