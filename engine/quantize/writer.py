"""The QDQ writer: a float network and its calibration become one standard ONNX file with integer weights."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from engine.errors import ModelError
from engine.normalisation import FLOAT_PRECISION_KEY
from engine.quantize.calibration import Calibration
from engine.quantize.equalisation import apply_scales, tied_tensors
from engine.quantize.files import write_whole
from engine.quantize.float_graph import FloatGraph, assemble_model, weight_names
from engine.quantize.folding import read_float_graph
from engine.quantize.placement import Placement, place
from engine.quantize.weights import LARGEST, quantise_weights
from engine.wording import counted

_Array = NDArray[Any]


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
    graph = read_float_graph(model)
    _check_scales(graph, calibration)
    apply_scales(graph, calibration.channel_scales)
    return quantise_graph(graph, place(graph, calibration.floats), calibration)


def quantise_graph(graph: FloatGraph, placement: Placement, calibration: Calibration) -> onnx.ModelProto:
    """The QDQ model of a graph that is equalised and placed already; the graph itself is left as it is."""
    _check_fit(graph, placement, calibration)
    model = _Writer(graph, placement, calibration).write()
    if calibration.floats:
        model.metadata_props.add(key=FLOAT_PRECISION_KEY, value=calibration.float_precision)
    return model


def _check_scales(graph: FloatGraph, calibration: Calibration) -> None:
    scalable = {name: group for group in tied_tensors(graph) for name in group}
    for tensor, scales in calibration.channel_scales.items():
        channels = {
            len(graph.constants[names[0]])
            for node in graph.nodes
            if (names := weight_names(graph, node)) is not None and node.output[0] in scalable.get(tensor, ())
        }
        if channels != {len(scales)}:
            raise ModelError(
                f"The calibration scales {counted(len(scales), 'channel')} of '{tensor}', which does not fit this "
                "model. Calibrate this model."
            )


def _check_fit(graph: FloatGraph, placement: Placement, calibration: Calibration) -> None:
    needed = set(placement.ranges_needed())
    missing, surplus = sorted(needed - set(calibration.ranges)), sorted(set(calibration.ranges) - needed)
    if missing or surplus:
        problem = f"has no range for '{missing[0]}'" if missing else f"names a tensor '{surplus[0]}'"
        raise ModelError(f"The calibration {problem}, so it belongs to another model. Calibrate this model.")
    if not needed:
        raise ModelError("The model has no Conv or Gemm with constant weights, so there is nothing to quantise.")
    for node in graph.nodes:
        names = weight_names(graph, node)
        correction = calibration.bias_corrections.get(node.output[0])
        if names is not None and correction is not None and len(correction) != len(graph.constants[names[1]]):
            raise ModelError(
                f"The calibration corrects {counted(len(correction), 'channel')} of '{node.output[0]}', which has "
                f"{len(graph.constants[names[1]])}, so it belongs to another model. Calibrate this model."
            )


class _Writer:
    """One pass over the graph in its own order, collecting nodes and initialisers."""

    def __init__(self, graph: FloatGraph, placement: Placement, calibration: Calibration) -> None:
        self._graph = graph
        self._placement = placement
        self._calibration = calibration
        self._parameters = {name: calibration.ranges[name].scale_and_zero_point() for name in placement.ranges_needed()}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, _Array] = dict(graph.constants)
        self._names: dict[str, str] = {}

    def write(self) -> onnx.ModelProto:
        for value in self._graph.inputs:
            self._quantise_value(value.name)
        for node in self._graph.nodes:
            self._nodes.append(self._rewired(node))
            for name in node.output:
                self._quantise_value(name)
        return assemble_model(self._graph, self._nodes, self._constants, self._graph.outputs)

    def _rewired(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy of the node that reads dequantised values and, if it is a Conv or Gemm, integer weights."""
        inputs = [self._name(name, "dequantized") if name in self._placement.roots else name for name in node.input]
        names = weight_names(self._graph, node)
        root = self._placement.roots.get(node.input[0])
        if names is not None and root is not None:
            inputs[1:] = self._integer_weights(node, *names, input_scale=self._parameters[root][0])
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        del twin.input[:]
        twin.input.extend(inputs)
        return twin

    def _integer_weights(
        self, node: onnx.NodeProto, weight_name: str, bias_name: str, input_scale: np.float32
    ) -> tuple[str, str]:
        weight, bias = self._graph.constants[weight_name], self._graph.constants[bias_name]
        correction = self._calibration.bias_corrections.get(node.output[0])
        if correction is not None:
            bias = bias + np.array(correction)
        output = node.output[0]
        integers = quantise_weights(weight, bias, input_scale, self._calibration.weight_limits.get(output, LARGEST))
        return (
            self._dequantise_constant(f"{output}.weight", integers.values, integers.scales),
            self._dequantise_constant(f"{output}.bias", integers.bias, integers.bias_scales),
        )

    def _dequantise_constant(self, name: str, values: _Array, scales: _Array) -> str:
        inputs = [self._name(name, part) for part in ("quantized", "scale", "zero_point")]
        zeros = np.zeros(scales.shape, values.dtype)
        self._constants.update(zip(inputs, (values, scales, zeros), strict=True))
        output = self._name(name, "dequantized")
        self._nodes.append(helper.make_node("DequantizeLinear", inputs, [output], f"{name}.dequantize", axis=0))
        return output

    def _quantise_value(self, name: str) -> None:
        root = self._placement.roots.get(name)
        if root is None:
            return
        grid = [self._name(root, part) for part in ("scale", "zero_point")]
        self._constants.update(zip(grid, map(np.asarray, self._parameters[root]), strict=True))
        stored, restored = self._name(name, "quantized"), self._name(name, "dequantized")
        self._nodes.append(helper.make_node("QuantizeLinear", [name, *grid], [stored], f"{name}.quantize"))
        self._nodes.append(helper.make_node("DequantizeLinear", [stored, *grid], [restored], f"{name}.dequantize"))

    def _name(self, owner: str, part: str) -> str:
        """The name of something the writer adds, always the same for the same owner and part, never taken already."""
        wanted = f"{owner}.{part}"
        if wanted not in self._names:
            self._names[wanted] = self._graph.fresh_name(wanted)
        return self._names[wanted]
