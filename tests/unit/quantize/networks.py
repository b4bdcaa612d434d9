"""Running models in ONNX Runtime and reading QDQ graphs, for the quantiser's tests."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.unit.models.tiny import tiny_model


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI it would saturate sums
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def nodes(model: onnx.ModelProto, operator: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == operator]


def with_an_outlier() -> onnx.ModelProto:
    """A network of which one channel is far larger than all others and read with tiny weights."""
    model = tiny_model()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("layer3.0.bn1.weight", "layer3.0.bn1.bias"):
            values[0] *= 4000
        elif tensor.name == "layer3.0.conv2.weight":
            values[:, 0] /= 4000
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model
