"""Cross-layer equalisation: scale moved between channels of layers that follow each other; results stay the same.

ReLU, pooling and addition commute with a positive factor per channel, so a channel can be made smaller where it is
produced and its weights larger where it is read. Channels of like size share a grid better; weights may share theirs
worse. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721); the
exponent is as in Xiao et al., "SmoothQuant" (arXiv 2211.10438). Here it is kept only where the error that is measured
behind the reading layers becomes smaller, weights quantised too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tessera.engine.errors import InputError
from tessera.engine.graph.ir import Graph, Node
from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.observation.histogram import Histogram
from tessera.engine.quantize.observation.observer import chunks
from tessera.engine.quantize.observation.ranges import candidate_ranges
from tessera.engine.quantize.placement.values import Placement
from tessera.engine.quantize.rounding.activations import fake_quantise
from tessera.engine.quantize.rounding.digits import rounded_correction
from tessera.engine.quantize.rounding.noise import relative_error
from tessera.engine.quantize.rounding.weights import quantise_weights

Array = NDArray[np.float32]
Scales = Mapping[str, Sequence[float]]

_RESHAPES = frozenset({"Flatten", "Reshape"})
_SCALE_FREE = _RESHAPES | {"Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Add"}
_EXPONENTS = (0.5, 1.0)
_SMALLEST = 2.0**-6
_IMAGES = 8
# A smaller gain is not worth scales to carry.
_CLEARLY = 0.8


def equalise(
    graph: Graph,
    placement: Placement,
    images: Sequence[Array],
    threads: int | None,
    report: Callable[[str, float], None],
) -> dict[str, tuple[float, ...]]:
    """Find the scales that help and apply them to the graph, in place.

    Returns:
        By tensor, one factor per channel that the tensor is divided by; only tensors that gain.

    Raises:
        InputError: there are no images.
    """
    some = [chunk for batch in images[:: max(1, len(images) // _IMAGES)][:_IMAGES] for chunk in chunks([batch])]
    if not some:
        raise InputError("There are no calibration images. Give at least one; 100 to 500 do well.")
    runners = NodeRunners(graph, threads)
    values = {graph.inputs[0]: np.concatenate(some)[:_IMAGES]}
    for node in graph.nodes:
        values[node.output] = runners.of(node).run(values)
    tied = tied_tensors(graph)
    groups = [sorted(group) for group in tied if any(name in placement.ranges_needed() for name in group)]
    done = 0

    def improve(group: Sequence[str]) -> dict[str, tuple[float, ...]]:
        nonlocal done
        roots = [name for name in placement.ranges_needed() if name in group]
        reach = np.max([_reach(values[name]) for name in roots], axis=0)
        relative = np.maximum(reach / max(float(reach.max()), 1e-30), _SMALLEST)
        errors = {0.0: _error(runners, placement, values, roots, np.ones_like(relative))}
        for exponent in _EXPONENTS:
            errors[exponent] = _error(runners, placement, values, roots, relative**exponent)
        best = min(errors, key=lambda exponent: errors[exponent])
        done += 1
        report("equalising channels", done / len(groups))
        helps = best and errors[best] < _CLEARLY * errors[0.0]
        return {roots[0]: rounded_correction(relative**best)} if helps else {}

    found = {root: scales for gains in runners.each(improve, groups) for root, scales in gains.items()}
    apply_scales(graph, found)
    return found


def apply_scales(graph: Graph, scales: Scales) -> None:
    """Divide the channels of tensors, and of all tied to them, by `scales`; the results stay what they were."""
    if not scales:
        return
    factor: dict[str, NDArray[np.float64]] = {}
    for group in tied_tensors(graph):
        for name in group & set(scales):
            factor.update(dict.fromkeys(group, np.array(scales[name], np.float64)))
    for node in graph.nodes:
        names = weight_names(graph, node)
        if names is None:
            continue
        weight, bias = graph.constants[names[0]], graph.constants[names[1]]
        read, written = factor.get(node.inputs[0]), factor.get(node.output)
        if read is not None:
            weight = weight * read.reshape(1, -1, *([1] * (weight.ndim - 2)))
        if written is not None:
            weight, bias = weight / written.reshape(-1, *([1] * (weight.ndim - 1))), bias / written
        graph.constants[names[0]], graph.constants[names[1]] = weight.astype(np.float32), bias


def tied_tensors(graph: Graph) -> list[set[str]]:
    """Groups of tensors whose channels can only be scaled together, and can be: only layers are at their ends."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    fixed = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        find(node.output)
        if node.op in _SCALE_FREE and not any(name in graph.constants for name in node.inputs):
            for name in node.present_inputs():
                parent[find(name)] = find(node.output)
            if not _keeps_channels(graph, node):
                fixed |= {*node.inputs, node.output}
        elif weight_names(graph, node) is None or _is_grouped(node):
            fixed |= {*node.present_inputs(), node.output}
    groups: dict[str, set[str]] = {}
    for name in parent:
        groups.setdefault(find(name), set()).add(name)
    return [group for group in groups.values() if not group & fixed]


def _keeps_channels(graph: Graph, node: Node) -> bool:
    """False for a reshape that does not leave the channels in dimension 1, as Flatten does behind a global pooling."""
    before, after = (graph.values[name].shape for name in (node.inputs[0], node.output))
    return node.op not in _RESHAPES or before[1:2] == after[1:2]


def _is_grouped(node: Node) -> bool:
    return bool(node.attrs.get("groups", 1) != 1)


def _reach(values: Array) -> NDArray[np.float64]:
    reach: NDArray[np.float64] = np.abs(values).max(axis=(0, *range(2, values.ndim))).astype(np.float64)
    return reach


def _error(
    runners: NodeRunners,
    placement: Placement,
    values: Mapping[str, Array],
    roots: Sequence[str],
    scales: NDArray[np.float64],
) -> float:
    """Relative error behind all layers that read the tensors, tensors and weights quantised after scaling."""
    graph, total = runners.graph, 0.0
    for root in roots:
        histogram = Histogram()
        histogram.add(_divided(values[root], scales))
        stored_as = candidate_ranges(histogram, "mse")["mse"]
        for node in graph.nodes:
            names = weight_names(graph, node)
            if names is None or placement.roots.get(node.inputs[0]) != root:
                continue
            weight = graph.constants[names[0]]
            weight = weight * scales.reshape(1, -1, *([1] * (weight.ndim - 2)))
            integers = quantise_weights(weight, graph.constants[names[1]], stored_as.scale_and_zero_point()[0])
            stored = fake_quantise(_divided(values[node.inputs[0]], scales), stored_as)
            got = runners.quantised(node, {names[0]: integers.real()}).run_on([stored])
            total += relative_error(values[node.output], got)
    return total


def _divided(values: Array, scales: NDArray[np.float64]) -> Array:
    divisor = scales.astype(np.float32).reshape(1, -1, *([1] * (values.ndim - 2)))
    return np.asarray(values / divisor, np.float32)
