"""Bias correction: put the mean of every output channel back where the float network has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engine.quantize.calibration import Calibration
from engine.quantize.float_graph import FloatGraph, needed_nodes, weight_names
from engine.quantize.observer import channel_means
from engine.quantize.placement import Placement
from engine.quantize.writer import quantise_graph


def correct_biases(
    graph: FloatGraph,
    placement: Placement,
    calibration: Calibration,
    images: Sequence[NDArray[np.float32]],
    threads: int | None,
    report: Callable[[str, float], None],
) -> Calibration:
    """Add bias corrections to a calibration.

    Layers are corrected in the order of the network, each against the network with all earlier corrections in place:
    an error that an earlier layer already made good is not corrected twice.

    Args:
        graph: the float network.
        placement: where it is quantised.
        calibration: its activation ranges; corrections that it holds already are dropped.
        images: float32 arrays [n, C, H, W] to compare on.
        threads: threads of the runs; None leaves the choice to ONNX Runtime.
        report: called as `report(stage, fraction)`.
    """
    stages = _stages(graph, placement)
    names = [name for stage in stages for name in stage]
    targets = channel_means(graph.to_model(names), _batched(images), threads)
    corrections: dict[str, tuple[float, ...]] = {}
    for position, stage in enumerate(stages):
        report("correcting biases", position / len(stages))
        current = quantise_graph(graph, placement, replace(calibration, bias_corrections=corrections))
        means = channel_means(_exposing(current, stage), _batched(images), threads)
        for name in stage:
            corrections[name] = tuple(float(value) for value in targets[name] - means[name])
    ordered = {name: corrections[name] for name in names}
    return Calibration.from_json(replace(calibration, bias_corrections=ordered).to_json())


def _stages(graph: FloatGraph, placement: Placement) -> list[list[str]]:
    """Outputs of quantised layers, grouped so that no layer of a group depends on another of the same group."""
    level: dict[str, int] = {}
    stages: dict[int, list[str]] = {}
    for node in graph.nodes:
        below = max((level.get(name, 0) for name in node.input), default=0)
        if weight_names(graph, node) is not None and node.input[0] in placement.roots:
            below += 1
            stages.setdefault(below, []).append(node.output[0])
        level.update(dict.fromkeys(node.output, below))
    return [stages[number] for number in sorted(stages)]


def _batched(images: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.float32]]:
    return [np.concatenate(images[start : start + 8]) for start in range(0, len(images), 8)]


def _exposing(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The part of a model that makes the named values, with these as its outputs."""
    nodes = needed_nodes(model.graph.node, names)
    used = {name for node in nodes for name in node.input}
    part = helper.make_graph(
        nodes,
        model.graph.name,
        model.graph.input,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    return helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
