"""The range of each tensor: the candidate that causes least error in the layers that read the tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tessera.engine.graph.ir import Graph
from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.rounding.activations import ActivationRange, fake_quantise
from tessera.engine.quantize.rounding.digits import rounded_range
from tessera.engine.quantize.rounding.noise import relative_error

Array = NDArray[np.float32]


# Images whose values are held at once: a hundred megabytes each in a large network.
PIECE = 2


@dataclass(frozen=True)
class TensorChoice:
    """How the range of one tensor was chosen.

    Attributes:
        name: the tensor.
        method: the winning method; "sharing" where the range is that of another tensor of its chain.
        errors: measured error of every candidate: noise power over signal power, summed over what reads the tensor.
    """

    name: str
    method: str
    errors: dict[str, float]


def choose_ranges(
    runners: NodeRunners,
    candidates: Mapping[str, Mapping[str, ActivationRange]],
    images: Array,
    report: Callable[[str, float], None],
) -> tuple[dict[str, ActivationRange], list[TensorChoice]]:
    """Compare candidates on values of the float network, a few images at a time.

    Args:
        runners: the float network and what runs its nodes.
        candidates: by tensor, the ranges to choose from, by method.
        images: [n, C, H, W]; the errors of all are added up.
        report: called as `report(stage, fraction)`.

    Returns:
        The ranges, rounded as they are written down, and how those that had several candidates were chosen.

    Raises:
        ModelError: a node cannot run.
    """
    open_choices = [name for name, found in candidates.items() if len(found) > 1]
    errors: dict[str, dict[str, float]] = {name: dict.fromkeys(candidates[name], 0.0) for name in open_choices}
    pieces = [images[start : start + PIECE] for start in range(0, len(images), PIECE)]
    for done, piece in enumerate(pieces):
        report("choosing ranges", done / len(pieces))
        values = float_values(runners, piece, candidates)
        for name, found in zip(
            open_choices, runners.each(_Comparison(runners, candidates, values), open_choices), strict=True
        ):
            for method, error in found.items():
                errors[name][method] += error / len(pieces)
        del values  # before the next are there
    choices = [TensorChoice(name, min(found, key=found.__getitem__), found) for name, found in errors.items()]
    methods = {choice.name: choice.method for choice in choices}
    ranges = {name: rounded_range(found[methods.get(name, next(iter(found)))]) for name, found in candidates.items()}
    return ranges, choices


class _Comparison:
    """The errors of a tensor's candidates on some images: in the tensor, and in what the layers behind make of it."""

    def __init__(
        self,
        runners: NodeRunners,
        candidates: Mapping[str, Mapping[str, ActivationRange]],
        values: Mapping[str, Array],
    ) -> None:
        self._runners, self._candidates, self._values = runners, candidates, values
        self._readers = runners.graph.readers()

    def __call__(self, name: str) -> dict[str, float]:
        graph, values = self._runners.graph, self._values
        layers = [node for node in self._readers.get(name, []) if weight_names(graph, node) is not None]
        wanted = [values[name], *(values[layer.output] for layer in layers)]
        errors = {}
        for method, candidate in self._candidates[name].items():
            stored = fake_quantise(values[name], candidate)
            got = [stored, *(self._runners.of(layer).run_on([stored]) for layer in layers)]
            errors[method] = sum(map(relative_error, wanted, got))
        return errors


def float_values(runners: NodeRunners, images: Array, also: Collection[str] = ()) -> dict[str, Array]:
    """Values of the float network for images [n, C, H, W], its input included.

    Only those are kept that a change of a layer may meet: what layers give, what they and nodes of several activations
    read, and `also`. A residual sum in front of its activation is a fifth of all values, and nobody asks for it.
    """
    graph = runners.graph
    kept = _kept(graph) | set(also)
    last_reader = {name: position for position, node in enumerate(graph.nodes) for name in node.present_inputs()}
    pieces: Sequence[Array] = [images[index : index + 1] for index in range(len(images))]

    def run(piece: Array) -> dict[str, Array]:
        found = {graph.inputs[0]: piece}
        for position, node in enumerate(graph.nodes):
            found[node.output] = runners.of(node).run(found)
            for name in node.present_inputs():
                if last_reader[name] == position and name not in kept:
                    found.pop(name, None)
        return found

    parts = runners.each(run, pieces)
    values = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0]) if name in kept}
    values[graph.inputs[0]] = images
    return values


def _kept(graph: Graph) -> set[str]:
    kept = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        read = [name for name in node.present_inputs() if name not in graph.constants]
        if weight_names(graph, node) is not None:
            kept |= {*read, node.output}
        elif len(read) > 1:
            kept |= set(read)
    return kept
