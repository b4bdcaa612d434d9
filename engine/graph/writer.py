"""Graphs to ONNX: the inverse of the reader, for graphs whose nodes are still what ONNX calls operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from tessera.engine.errors import UnsupportedOperatorError
from tessera.engine.graph.ir import NO_CLIP, Array, Graph, Node, ValueInfo

# Every form can be written from this opset on; a graph from an older file gets the one that our own files use.
_COMPLETE_OPSET, _OWN_OPSET = 13, 17
_OLDEST_OPSET = 11
_BATCH = "N"


def to_onnx(graph: Graph, outputs: Iterable[str] | None = None, *, opset: int | None = None) -> onnx.ModelProto:
    """Writes a graph as an ONNX model; the same graph always gives the same bytes.

    Args:
        graph: a graph from the reader, or one in which constants were folded. Constants in float64 are rounded to
            float32. An operator of a domain other than ONNX's own ("domain.Name") keeps its attributes as they are.
        outputs: values to return instead of the graph's own outputs.
        opset: version of ONNX's operators to write for, 11 or later; None for the graph's own, or 17 where that one is
            older than 13.

    Returns:
        The nodes that the outputs depend on, in the graph's order, with the constants that they read.

    Raises:
        UnsupportedOperatorError: `opset` is too old for what a node computes.
        ValueError: a node has something fused into it, or a value is stored quantised, as after `passes.lower`.
    """
    wanted = list(graph.outputs if outputs is None else dict.fromkeys(outputs))
    writer = _Writer(graph, opset or (graph.opset if graph.opset >= _COMPLETE_OPSET else _OWN_OPSET))
    for node in _needed(graph, wanted):
        writer.add(node)
    return writer.model(wanted)


class _Writer:
    """The model as far as it is written."""

    def __init__(self, graph: Graph, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._domains: set[str] = set()

    def add(self, node: Node) -> None:
        """Writes one node."""
        _require_plain(self._graph, node)
        if self._opset < _known_since(self._graph, node):
            raise UnsupportedOperatorError(node.name, node.op, f"opset {self._opset} has no form for what it computes.")
        domain, _, op = node.op.rpartition(".")
        inputs, attributes = list(node.inputs), dict(node.attrs)
        if domain:
            self._domains.add(domain)
        else:
            attributes = _ATTRIBUTES[op](node.attrs)
        match op:
            case "Clip":
                inputs += self._bounds(node)
            case "Reshape":
                inputs.append(self._constant(f"{node.output}.shape", np.array(node.attrs["shape"], np.int64)))
            case "QuantizeLinear" | "DequantizeLinear" if self._graph.constants[node.inputs[1]].ndim:
                attributes["axis"] = node.attrs["axis"]
        while inputs and not inputs[-1]:
            inputs.pop()
        self._constants.update({name: self._graph.constants[name] for name in inputs if name in self._graph.constants})
        self._nodes.append(helper.make_node(op, inputs, [node.output], node.name, domain=domain or None, **attributes))

    def model(self, outputs: Iterable[str]) -> onnx.ModelProto:
        """All that was written as one model."""
        graph = self._graph
        proto = helper.make_graph(
            self._nodes,
            graph.name,
            [_declaration(graph.values[name]) for name in graph.inputs],
            [_declaration(graph.values[name]) for name in outputs],
            [numpy_helper.from_array(_storable(array), name) for name, array in self._constants.items()],
        )
        domains = [helper.make_opsetid("", self._opset), *(helper.make_opsetid(d, 1) for d in sorted(self._domains))]
        oldest = helper.find_min_ir_version_for(domains, ignore_unknown=True)
        model = helper.make_model(proto, opset_imports=domains, producer_name="tessera", ir_version=oldest)
        for key, value in graph.metadata.items():
            model.metadata_props.add(key=key, value=value)
        return model

    def _bounds(self, node: Node) -> list[str]:
        dtype = self._graph.values[node.inputs[0]].dtype
        return [
            "" if bound == unbounded else self._constant(f"{node.output}.{end}", np.array(bound, dtype))
            for end, bound, unbounded in zip(("min", "max"), node.attrs["clip"], NO_CLIP, strict=True)
        ]

    def _constant(self, wanted: str, array: Array) -> str:
        """Adds an array that is an attribute in the graph and an input in ONNX. Returns the name it got."""
        name, number = wanted, 1
        while name in self._graph.values or name in self._constants:
            number += 1
            name = f"{wanted}.{number}"
        self._constants[name] = array
        return name


def _require_plain(graph: Graph, node: Node) -> None:
    clips = node.op != "Clip" and node.attrs.get("clip", NO_CLIP) != NO_CLIP
    if clips or (node.op == "Conv" and any(node.inputs[3:])):
        raise ValueError(f"{node.describe()} has a residual or a clip fused into it, which ONNX has no form for.")
    if any(graph.values[name].quant is not None for name in (*node.present_inputs(), node.output)):
        raise ValueError(f"{node.describe()} reads or writes a value stored quantised, which ONNX has no form for.")


def _known_since(graph: Graph, node: Node) -> int:
    """The first opset in which ONNX says what the node computes as it is written here."""
    match node.op:
        case "AveragePool" if node.attrs["dilations"] != (1, 1):
            return 19
        case "HardSwish":
            return 14
        case "Softmax" if node.attrs["axis"] != len(graph.values[node.inputs[0]].shape) - 1:
            return 13  # before, it spanned all dimensions from its axis on
        case "QuantizeLinear" | "DequantizeLinear" if graph.constants[node.inputs[1]].ndim:
            return 13
        case _:
            return _OLDEST_OPSET


def _needed(graph: Graph, wanted: Iterable[str]) -> list[Node]:
    needed = set(wanted)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.present_inputs())
    return kept[::-1]


def _declaration(info: ValueInfo) -> ValueInfoProto:
    shape = [_BATCH if axis == 0 and size is None else size for axis, size in enumerate(info.shape)]
    return helper.make_tensor_value_info(info.name, _element_type(info.dtype), shape)


def _element_type(dtype: np.dtype[Any]) -> int:
    return int(TensorProto.FLOAT if dtype == np.float64 else helper.np_dtype_to_tensor_dtype(dtype))


def _storable(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _no_attributes(attrs: dict[str, Any]) -> dict[str, Any]:
    return {}


def _same(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda attrs: {name: attrs[name] for name in names}


def _conv(attrs: dict[str, Any]) -> dict[str, Any]:
    window = {name: list(attrs[name]) for name in ("strides", "pads", "dilations")}
    return {"kernel_shape": list(attrs["kernel"]), "group": attrs["groups"], **window}


def _pool(attrs: dict[str, Any]) -> dict[str, Any]:
    top, left, bottom, right = attrs["pads"]
    below, beside = attrs["overhang"]
    written: dict[str, Any] = {
        "kernel_shape": list(attrs["kernel"]),
        "strides": list(attrs["strides"]),
        "pads": [top, left, bottom - below, right - beside],
    }
    # What is not needed is left out: AveragePool knows dilations since opset 19 only.
    if attrs["dilations"] != (1, 1):
        written["dilations"] = list(attrs["dilations"])
    if attrs["overhang"] != (0, 0):
        written["ceil_mode"] = 1
    if attrs.get("count_include_pad"):
        written["count_include_pad"] = 1
    return written


def _gemm(attrs: dict[str, Any]) -> dict[str, Any]:
    written = {"alpha": attrs["alpha"], "beta": attrs["beta"]}
    turned = {"transA": int(attrs["trans_a"]), "transB": int(attrs["trans_b"])}
    return {
        **{name: factor for name, factor in written.items() if factor != 1.0},
        **{name: flag for name, flag in turned.items() if flag},
    }


# Each operator's ONNX attributes from those of its node; arrays that ONNX has as inputs are added by `_Writer`.
_ATTRIBUTES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "Add": _no_attributes,
    "AveragePool": _pool,
    "BatchNormalization": _same("epsilon"),
    "Clip": _no_attributes,
    "Concat": _same("axis"),
    "Conv": _conv,
    "DequantizeLinear": _no_attributes,
    "Flatten": _same("axis"),
    "Gemm": _gemm,
    "GlobalAveragePool": _no_attributes,
    "HardSigmoid": _same("alpha", "beta"),
    "HardSwish": _no_attributes,
    "Identity": _no_attributes,
    "MatMul": _no_attributes,
    "MaxPool": _pool,
    "Mul": _no_attributes,
    "QuantizeLinear": _no_attributes,
    "Relu": _no_attributes,
    "Reshape": _no_attributes,
    "Sigmoid": _no_attributes,
    "Softmax": _same("axis"),
}
