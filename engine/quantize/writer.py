"""The QDQ writer: a float network and its calibration become one standard ONNX file with integer weights."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import onnx

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Array, Graph, Node, Shape
from tessera.engine.graph.writer import to_onnx
from tessera.engine.normalisation import FLOAT_PRECISION_KEY
from tessera.engine.quantize.calibration import Calibration
from tessera.engine.quantize.files import write_whole
from tessera.engine.quantize.network.layers import read_network, weight_names
from tessera.engine.quantize.placement.values import Placement, place
from tessera.engine.quantize.rounding.weights import LARGEST, quantise_weights
from tessera.engine.quantize.settlement.equalisation import apply_scales, tied_tensors
from tessera.wording import counted


def write_quantised(
    model: str | os.PathLike[str] | onnx.ModelProto, calibration: Calibration, out: str | os.PathLike[str]
) -> None:
    """Write the QDQ form of a float model; the same model and calibration always give the same bytes.

    Args:
        model: float32 ONNX, a file or in memory.
        calibration: what `calibrate` returned for this model.
        out: the file to write; it appears whole or not at all.

    Raises:
        ModelError: the model cannot be read or quantised, the calibration belongs to another model, or `out` cannot be
            written.
    """
    write_whole(out, quantised_model(model, calibration).SerializeToString(deterministic=True))


def quantised_model(model: str | os.PathLike[str] | onnx.ModelProto, calibration: Calibration) -> onnx.ModelProto:
    """The QDQ form of a float model, in memory; arguments and errors as for `write_quantised`."""
    graph = read_network(model)
    _check_scales(graph, calibration)
    apply_scales(graph, calibration.channel_scales)
    return quantise_graph(graph, place(graph, calibration.floats), calibration)


def quantise_graph(graph: Graph, placement: Placement, calibration: Calibration) -> onnx.ModelProto:
    """The QDQ model of a graph that is equalised and placed already; the graph itself is left as it is."""
    _check_fit(graph, placement, calibration)
    quantised = _Quantised(graph, placement, calibration).build()
    if calibration.floats:
        quantised.metadata[FLOAT_PRECISION_KEY] = calibration.float_precision
    return to_onnx(quantised)


def _check_scales(graph: Graph, calibration: Calibration) -> None:
    scalable = {name: group for group in tied_tensors(graph) for name in group}
    for tensor, scales in calibration.channel_scales.items():
        channels = {
            len(graph.constants[names[0]])
            for node in graph.nodes
            if (names := weight_names(graph, node)) is not None and node.output in scalable.get(tensor, ())
        }
        if channels != {len(scales)}:
            raise ModelError(
                f"The calibration scales {counted(len(scales), 'channel')} of '{tensor}', which does not fit this "
                "model. Calibrate this model."
            )


def _check_fit(graph: Graph, placement: Placement, calibration: Calibration) -> None:
    needed = set(placement.ranges_needed())
    # What stays in floating point here may be stored in eight bits on another CPU.
    known = needed | set(calibration.floats if calibration.gains else ())
    missing, surplus = sorted(needed - set(calibration.ranges)), sorted(set(calibration.ranges) - known)
    if missing or surplus:
        problem = f"has no range for '{missing[0]}'" if missing else f"names a tensor '{surplus[0]}'"
        raise ModelError(f"The calibration {problem}, so it belongs to another model. Calibrate this model.")
    if not needed:
        raise ModelError("The model has no Conv or Gemm with constant weights, so there is nothing to quantise.")
    for node in graph.nodes:
        names = weight_names(graph, node)
        correction = calibration.bias_corrections.get(node.output)
        if names is not None and correction is not None and len(correction) != len(graph.constants[names[1]]):
            raise ModelError(
                f"The calibration corrects {counted(len(correction), 'channel')} of '{node.output}', which has "
                f"{len(graph.constants[names[1]])}, so it belongs to another model. Calibrate this model."
            )


class _Quantised:
    """One pass over the network in its own order, which builds the same network with integers in it."""

    def __init__(self, graph: Graph, placement: Placement, calibration: Calibration) -> None:
        self._source = graph
        self._graph = replace(graph.copy(), nodes=[])
        self._placement = placement
        self._calibration = calibration
        self._parameters = {name: calibration.ranges[name].scale_and_zero_point() for name in placement.ranges_needed()}
        self._grids: dict[str, list[str]] = {}
        self._restored: dict[str, str] = {}

    def build(self) -> Graph:
        for name in self._source.inputs:
            self._quantise_value(name)
        for node in self._source.nodes:
            self._graph.nodes.append(self._rewired(node))
            self._quantise_value(node.output)
        self._graph.validate()
        return self._graph

    def _rewired(self, node: Node) -> Node:
        """A copy of the node that reads dequantised values and, if it is a Conv or Gemm, integer weights."""
        inputs = [self._restored.get(name, name) for name in node.inputs]
        names = weight_names(self._source, node)
        root = self._placement.roots.get(node.inputs[0])
        if names is not None and root is not None:
            inputs[1:3] = self._integer_weights(node, *names, input_scale=self._parameters[root][0])
        return replace(node, inputs=inputs)

    def _integer_weights(
        self, node: Node, weight_name: str, bias_name: str, input_scale: np.float32
    ) -> tuple[str, str]:
        weight, bias = self._source.constants[weight_name], self._source.constants[bias_name]
        correction = self._calibration.bias_corrections.get(node.output)
        if correction is not None:
            bias = bias + np.array(correction)
        output = node.output
        integers = quantise_weights(weight, bias, input_scale, self._calibration.weight_limits.get(output, LARGEST))
        return (
            self._dequantise_constant(f"{output}.weight", integers.values, integers.scales),
            self._dequantise_constant(f"{output}.bias", integers.bias, integers.bias_scales),
        )

    def _dequantise_constant(self, name: str, values: Array, scales: Array) -> str:
        parts = {"quantized": values, "scale": scales, "zero_point": np.zeros(scales.shape, values.dtype)}
        inputs = [self._graph.add_constant(f"{name}.{part}", array) for part, array in parts.items()]
        return self._dequantise(name, inputs, values.shape)

    def _quantise_value(self, name: str) -> None:
        root = self._placement.roots.get(name)
        if root is None:
            return
        if root not in self._grids:
            parts = zip(("scale", "zero_point"), map(np.asarray, self._parameters[root]), strict=True)
            self._grids[root] = [self._graph.add_constant(f"{root}.{part}", array) for part, array in parts]
        shape, dtype = self._graph.values[name].shape, np.dtype(np.uint8)
        stored = self._graph.add_value(f"{name}.quantized", shape, dtype)
        inputs = [name, *self._grids[root]]
        self._graph.nodes.append(Node("QuantizeLinear", f"{name}.quantize", inputs, [stored], {"axis": 0}))
        self._restored[name] = self._dequantise(name, [stored, *self._grids[root]], shape)

    def _dequantise(self, name: str, inputs: list[str], shape: Shape) -> str:
        output = self._graph.add_value(f"{name}.dequantized", shape, np.dtype(np.float32))
        self._graph.nodes.append(Node("DequantizeLinear", f"{name}.dequantize", inputs, [output], {"axis": 0}))
        return output
