"""A float graph as calls of PyTorch's operators, BatchNorm folded. Imported only where torch is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import read_model

torch: Any = importlib.import_module("torch")  # an extra; types of it would be missing without
F = torch.nn.functional
Tensor = Any


class TorchGraph:
    """Runs the nodes in their order.

    Args:
        source: an ONNX file, or its graph before anything is fused.

    Attributes:
        graph: what is run.
        constants: its weights and biases by name, tensors that may be trained.

    Raises:
        ModelError: the graph has an operator that is not among those of ResNets.
    """

    def __init__(self, source: Path | Graph) -> None:
        self.graph = lower(read_model(source) if isinstance(source, Path) else source)
        unknown = sorted({node.op for node in self.graph.nodes} - set(_OPERATORS))
        if unknown:
            raise ModelError(f"no PyTorch form of {', '.join(unknown)} here")
        self.constants = {name: tensor_of(array) for name, array in self.graph.constants.items()}

    def run(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits of a batch, float32 [N, classes]."""
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = self.values(x)[self.graph.outputs[0]].numpy()
        return logits

    def values(self, x: npt.NDArray[np.float32]) -> dict[str, Tensor]:
        """Every value of the graph by name, for a batch [N, C, H, W]."""
        values = dict(self.constants)
        values[self.graph.inputs[0]] = tensor_of(x)
        for node in self.graph.nodes:
            given = [values[name] if name else None for name in node.inputs]
            values[node.output] = _clipped(_OPERATORS[node.op](node, given), node)
        return values


def tensor_of(array: npt.NDArray[Any]) -> Tensor:
    """A float32 tensor of its own, channels last where it has four dimensions."""
    tensor = torch.from_numpy(np.array(array, np.float32))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _clipped(x: Tensor, node: Node) -> Tensor:
    low, high = node.attrs.get("clip", (float("-inf"), float("inf")))
    if low == 0 and high == float("inf"):
        return F.relu(x)
    return x if (low, high) == (float("-inf"), float("inf")) else x.clamp(low, high)


def _padded(x: Tensor, node: Node, fill: float) -> Tensor:
    top, left, bottom, right = node.attrs["pads"]
    return F.pad(x, (left, right, top, bottom), value=fill) if (top, left, bottom, right) != (0, 0, 0, 0) else x


def _conv(node: Node, given: list[Tensor]) -> Tensor:
    x, weights, bias, residual = (*given, None, None)[:4]
    top, left, bottom, right = node.attrs["pads"]
    even = (top, left) == (bottom, right)
    strides, dilations, groups = (node.attrs[key] for key in ("strides", "dilations", "groups"))
    if not even:
        x = _padded(x, node, 0.0)
    sums = F.conv2d(x, weights, bias, strides, (top, left) if even else 0, dilations, groups)
    return sums if residual is None else sums.add_(residual)


def _max_pool(node: Node, given: list[Tensor]) -> Tensor:
    kernel, strides, dilations = (node.attrs[key] for key in ("kernel", "strides", "dilations"))
    return F.max_pool2d(_padded(given[0], node, float("-inf")), kernel, strides, 0, dilations)


_OPERATORS: dict[str, Callable[[Node, list[Tensor]], Tensor]] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "GlobalAveragePool": lambda node, given: given[0].mean((2, 3), keepdim=True),
    "Add": lambda node, given: given[0] + given[1],
    "Clip": lambda node, given: given[0],  # which all are, afterwards
    "Flatten": lambda node, given: given[0].flatten(1),
}
