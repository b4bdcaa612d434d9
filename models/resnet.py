"""ResNet as ONNX, from a state dict with torchvision's key names.

Depth, widths, block kind, groups and classes all follow from the tensors' names and shapes, so ResNet-18 to 152, wide
ResNets and ResNeXts need no configuration. The stride of a bottleneck sits on its 3x3 convolution (v1.5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tessera.engine.errors import ModelError
from tessera.models.preprocessing.image_size import Size, sides
from tessera.wording import counted

_OPSET = 17
_IR_VERSION = 8
_EPSILON = 1e-5
_STAGES = 4
_BATCHNORM_PARTS = ("weight", "bias", "running_mean", "running_var")

StateDict = Mapping[str, NDArray[Any]]


def build_resnet(
    state: StateDict,
    *,
    name: str,
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    labels: Sequence[str] = (),
) -> onnx.ModelProto:
    """The stock float32 graph of a ResNet: BatchNormalization not folded, dynamic batch, opset 17.

    Args:
        state: tensors by torchvision key; any float type, stored as float32.
        name: the graph's name.
        size: height and width of the input image in pixels; one number where they are equal.
        mean: per-channel mean that images are normalised with, in 0..1 units; kept as metadata.
        std: per-channel standard deviation, likewise.
        labels: class names, kept as metadata when given.

    Returns:
        A model with input `input` float32 [N, 3, height, width], normalised, and output `output` float32 logits
        [N, classes]. The same arguments always give the same bytes.

    Raises:
        ModelError: a tensor is missing, unexpected, of the wrong shape, or not finite.
    """
    network = _Network(state)
    network.build()
    network.refuse_leftovers()
    image: list[int | str] = ["N", 3, *sides(size)]
    graph = helper.make_graph(
        network.nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", network.classes])],
        network.initialisers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="tessera", ir_version=_IR_VERSION
    )
    model.metadata_props.add(key="tessera.mean", value=json.dumps([float(value) for value in mean]))
    model.metadata_props.add(key="tessera.std", value=json.dumps([float(value) for value in std]))
    if labels:
        model.metadata_props.add(key="tessera.labels", value="\n".join(labels))
    return model


@dataclass
class _Network:
    """The graph under construction: each method adds one piece and returns the name of its result."""

    state: StateDict
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initialisers: list[onnx.TensorProto] = field(default_factory=list)
    classes: int = 0
    _used: set[str] = field(default_factory=set)

    def build(self) -> None:
        x, channels = self._convolution("input", "conv1", 3, stride=2)
        x = self._relu(self._batchnorm(x, "bn1", channels))
        x = self._add_node("MaxPool", "maxpool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        for stage in range(1, _STAGES + 1):
            for block in range(self._block_count(stage)):
                stride = 2 if stage > 1 and block == 0 else 1
                x, channels = self._block(x, f"layer{stage}.{block}", channels, stride)
        x = self._add_node("GlobalAveragePool", "avgpool", [x])
        x = self._add_node("Flatten", "flatten", [x], axis=1)
        self._classifier(x, channels)

    def refuse_leftovers(self) -> None:
        """Every tensor of the file has to have been used; counters that training keeps do not matter."""
        surplus = sorted(key for key in self.state if key not in self._used and not key.endswith("num_batches_tracked"))
        if surplus:
            raise ModelError(
                f"The weights hold {counted(len(surplus), 'tensor')} that a ResNet has not: {_listed(surplus)}. "
                "Check that the file belongs to a ResNet with torchvision's key names."
            )

    def _block_count(self, stage: int) -> int:
        numbers = {int(m[1]) for key in self.state if (m := re.match(rf"layer{stage}\.(\d{{1,4}})\.", key))}
        if not numbers:
            raise ModelError(f"The weights have no 'layer{stage}'. A ResNet has {_STAGES} stages, layer1 to layer4.")
        missing = sorted(set(range(len(numbers))) - numbers)
        if missing:
            raise ModelError(f"The weights have no 'layer{stage}.{missing[0]}' but later blocks: an incomplete file.")
        return len(numbers)

    def _block(self, x: str, prefix: str, channels: int, stride: int) -> tuple[str, int]:
        shortcut, shortcut_channels = x, channels
        has_projection = f"{prefix}.downsample.0.weight" in self.state
        if has_projection:
            shortcut, shortcut_channels = self._convolution(x, f"{prefix}.downsample.0", channels, stride=stride)
            shortcut = self._batchnorm(shortcut, f"{prefix}.downsample.1", shortcut_channels)
        is_bottleneck = f"{prefix}.conv3.weight" in self.state
        strides = (1, stride, 1) if is_bottleneck else (stride, 1)
        width = channels
        for number, step in enumerate(strides, start=1):
            x, width = self._convolution(x, f"{prefix}.conv{number}", width, stride=step)
            x = self._batchnorm(x, f"{prefix}.bn{number}", width)
            if number < len(strides):
                x = self._relu(x)
        if width != shortcut_channels or (stride != 1 and not has_projection):
            raise ModelError(
                f"Block '{prefix}' cannot add its {counted(width, 'channel')} to a shortcut of {shortcut_channels}: "
                "its 'downsample' tensors are missing or do not fit."
            )
        return self._relu(self._add_node("Add", f"{prefix}.add", [x, shortcut])), width

    def _convolution(self, x: str, prefix: str, channels: int, stride: int) -> tuple[str, int]:
        key = f"{prefix}.weight"
        weight = self._tensor(key)
        if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
            raise ModelError(f"'{key}' has shape {weight.shape}; a square kernel of odd size was expected.")
        outputs, per_group, kernel = weight.shape[:3]
        groups = channels // per_group if per_group else 0
        if groups == 0 or groups * per_group != channels or outputs == 0 or outputs % groups:
            raise ModelError(
                f"'{key}' has shape {weight.shape}, which does not fit its input of {counted(channels, 'channel')}."
            )
        node = self._add_node(
            "Conv",
            prefix,
            [x, self._initialiser(key, weight)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            dilations=[1, 1],
            group=groups,
        )
        return node, outputs

    def _batchnorm(self, x: str, prefix: str, channels: int) -> str:
        names = []
        for part in _BATCHNORM_PARTS:
            key = f"{prefix}.{part}"
            tensor = self._tensor(key)
            if tensor.shape != (channels,):
                raise ModelError(f"'{key}' has shape {tensor.shape}; ({channels},) was expected.")
            if part == "running_var" and not (tensor >= 0).all():
                raise ModelError(f"'{key}' holds a negative variance. The weights are damaged.")
            names.append(self._initialiser(key, tensor))
        return self._add_node("BatchNormalization", prefix, [x, *names], epsilon=_EPSILON)

    def _classifier(self, x: str, channels: int) -> None:
        weight, bias = self._tensor("fc.weight"), self._tensor("fc.bias")
        if weight.ndim != 2 or weight.shape[1] != channels or bias.shape != weight.shape[:1] or not bias.size:
            raise ModelError(
                f"'fc.weight' {weight.shape} and 'fc.bias' {bias.shape} do not fit a network of "
                f"{counted(channels, 'channel')}."
            )
        self.classes = len(bias)
        names = [self._initialiser("fc.weight", weight), self._initialiser("fc.bias", bias)]
        self.nodes.append(helper.make_node("Gemm", [x, *names], ["output"], "fc", transB=1))

    def _relu(self, x: str) -> str:
        return self._add_node("Relu", f"{x}.relu", [x])

    def _add_node(self, operator: str, name: str, inputs: list[str], **options: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **options))
        return name

    def _tensor(self, key: str) -> NDArray[np.float32]:
        tensor = self.state.get(key)
        if tensor is None:
            raise ModelError(f"The weights have no '{key}': an incomplete file, or not a ResNet of torchvision's form.")
        self._used.add(key)
        if tensor.dtype.kind != "f":
            raise ModelError(f"'{key}' has type {tensor.dtype}; a float type was expected.")
        values = tensor.astype(np.float32)
        if not np.isfinite(values).all():
            raise ModelError(f"'{key}' holds values that are not finite. The weights are damaged.")
        return values

    def _initialiser(self, key: str, values: NDArray[np.float32]) -> str:
        self.initialisers.append(numpy_helper.from_array(values, key))
        return key


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
