"""Small ONNX models, and one check that everything agrees on what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tessera.engine.graph.ir import Graph
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference

Arrays = Mapping[str, np.ndarray]

TOLERANCE = 1e-5


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], name=f"{output}_node", **attributes)


def build(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    constants: Arrays | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    rank: int = 4,
    opset: int = 17,
    inputs: Mapping[str, Sequence[int | str]] | None = None,
    input_type: int = TensorProto.FLOAT,
    output_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model that reads "x" of `shape` (or all of `inputs`) and returns `outputs` of `rank`, their sizes left open."""
    declared = {"x": shape, **(inputs or {})}
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, input_type, sizes) for name, sizes in declared.items()],
        [helper.make_tensor_value_info(name, output_type, [f"{name}{i}" for i in range(rank)]) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def run_onnxruntime(model: onnx.ModelProto, feeds: Arrays) -> dict[str, np.ndarray]:
    """What ONNX Runtime returns when it runs the file as written: no rewriting, so rounding happens where it says."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def assert_close(actual: Arrays, expected: Arrays, quantum: float = 0.0) -> None:
    """Same names, shapes and types; values equal up to float32 rounding, or up to one `quantum` where given."""
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].shape == array.shape
        assert actual[name].dtype == array.dtype
        scale = np.abs(array[np.isfinite(array)]).max(initial=1.0) if array.dtype == np.float32 else 1.0
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=max(TOLERANCE * scale, quantum * 1.001))


def agree(model: onnx.ModelProto, feeds: Arrays, quantum: float = 0.0) -> Graph:
    """Checks that ONNX Runtime, the reference, and the reference after the passes agree. Returns the lowered graph."""
    expected = run_onnxruntime(model, feeds)
    graph = convert_model(model)
    assert_close(run_reference(graph, feeds), expected, quantum)
    lowered = lower(graph)
    assert_close(run_reference(lowered, feeds), expected, quantum)
    for name, array in expected.items():
        declared = graph.values[name].shape
        assert len(declared) == array.ndim
        assert all(size is None or size == real for size, real in zip(declared, array.shape, strict=True))
        assert lowered.values[name].shape == declared
    return lowered


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]
