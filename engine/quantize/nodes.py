"""Running single nodes of a float network on stored values, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.onnx_runtime import onnxruntime
from engine.quantize.float_graph import FloatGraph

Array = NDArray[np.float32]

_IR_VERSION = 8
# Images per run: enough to keep every thread busy, few enough that the runtime's own copies stay in tens of megabytes.
_CHUNK = 8


class NodeRunner:
    """Runs one node of a graph on any number of images.

    Args:
        graph: the graph that the node and its constants belong to.
        node: the node; it has one output.
        constants: constants to use instead of the graph's, by name: quantised weights, for example.
        threads: threads of a run; None leaves the choice to ONNX Runtime.

    Raises:
        ModelError: ONNX Runtime cannot load the node.
    """

    def __init__(
        self,
        graph: FloatGraph,
        node: onnx.NodeProto,
        threads: int | None,
        constants: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        known = {**graph.constants, **(constants or {})}
        self.inputs = [name for name in dict.fromkeys(node.input) if name and name not in known]
        held = [name for name in dict.fromkeys(node.input) if name in known]
        part = helper.make_graph(
            [node],
            "node",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.inputs],
            [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)],
            [numpy_helper.from_array(_float32(known[name]), name) for name in held],
        )
        model = helper.make_model(
            part, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=_IR_VERSION, producer_name="tessera"
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # A session a node: threads that spin after a run would take the cores from the next node's.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Nor may each keep the memory of its largest run.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions share no base class
            raise ModelError(f"ONNX Runtime cannot run the node '{node.name}': {error}") from error

    def run(self, values: Mapping[str, Array]) -> Array:
        """Run the node.

        Args:
            values: the activations that it reads, float32 with the images first.

        Returns:
            Its output, float32.

        Raises:
            ModelError: the node fails on values of these shapes.
        """
        return self.run_on([values[name] for name in self.inputs])

    def run_on(self, activations: Sequence[Array]) -> Array:
        """As `run`, with the activations in the order of `inputs`."""
        count = len(activations[0])
        try:
            parts = [
                self._session.run(
                    None,
                    {name: value[start : start + _CHUNK] for name, value in zip(self.inputs, activations, strict=True)},
                )[0]
                for start in range(0, count, _CHUNK)
            ]
        except Exception as error:  # as above
            raise ModelError(f"A node cannot run on its calibration images: {error}") from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _float32(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float64 else array


class NodeRunners:
    """The runners of a float graph's nodes, each made when it is first asked for.

    Args:
        graph: the graph.
        threads: threads of a run; None leaves the choice to ONNX Runtime.
    """

    def __init__(self, graph: FloatGraph, threads: int | None) -> None:
        self.graph = graph
        self.threads = threads
        self._made: dict[str, NodeRunner] = {}

    def of(self, node: onnx.NodeProto) -> NodeRunner:
        """The runner of a node with the graph's own constants."""
        key = node.output[0]
        if key not in self._made:
            self._made[key] = NodeRunner(self.graph, node, self.threads)
        return self._made[key]

    def quantised(self, node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> NodeRunner:
        """A runner of a node with other constants."""
        return NodeRunner(self.graph, node, self.threads, constants)
