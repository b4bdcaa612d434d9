"""The range of each tensor: the candidate that causes least error in the layers that read the tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.rounding.activations import ActivationRange, fake_quantise
from tessera.engine.quantize.rounding.digits import rounded_range
from tessera.engine.quantize.rounding.noise import relative_error

Array = NDArray[np.float32]


@dataclass(frozen=True)
class TensorChoice:
    """How the range of one tensor was chosen.

    Attributes:
        name: the tensor.
        method: the winning method.
        errors: measured error of every candidate: noise power over signal power, summed over what reads the tensor.
    """

    name: str
    method: str
    errors: dict[str, float]


def choose_ranges(
    runners: NodeRunners,
    candidates: Mapping[str, Mapping[str, ActivationRange]],
    values: Mapping[str, Array],
    report: Callable[[str, float], None],
) -> tuple[dict[str, ActivationRange], list[TensorChoice]]:
    """Compare candidates on values of the float network.

    Args:
        runners: the float network and what runs its nodes.
        candidates: by tensor, the ranges to choose from, by method.
        values: what the float network has for a few images, by value; of all `candidates` and what reads them.
        report: called as `report(stage, fraction)`.

    Returns:
        The ranges, rounded as they are written down, and how those that had several candidates were chosen.

    Raises:
        ModelError: a node cannot run.
    """
    graph = runners.graph
    readers = graph.readers()

    def compare(name: str) -> TensorChoice:
        layers = [node for node in readers.get(name, []) if weight_names(graph, node) is not None]
        wanted = [values[name], *(values[layer.output] for layer in layers)]

        def error(candidate: ActivationRange) -> float:
            stored = fake_quantise(values[name], candidate)
            got = [stored, *(runners.of(layer).run_on([stored]) for layer in layers)]
            return sum(map(relative_error, wanted, got))

        errors = {method: error(candidate) for method, candidate in candidates[name].items()}
        report("choosing ranges", len(done) / len(candidates))
        done.append(name)
        return TensorChoice(name, min(errors, key=lambda method: errors[method]), errors)

    done: list[str] = []
    open_choices = [name for name, found in candidates.items() if len(found) > 1]
    choices = runners.each(compare, open_choices)
    methods = {choice.name: choice.method for choice in choices}
    ranges = {name: rounded_range(found[methods.get(name, next(iter(found)))]) for name, found in candidates.items()}
    return ranges, choices


def float_values(runners: NodeRunners, images: Array) -> dict[str, Array]:
    """Every value of the float network for images [n, C, H, W], its input included."""
    values = {runners.graph.inputs[0]: images}
    pieces: Sequence[Array] = [images[index : index + 1] for index in range(len(images))]

    def run(piece: Array) -> dict[str, Array]:
        found = {runners.graph.inputs[0]: piece}
        for node in runners.graph.nodes:
            found[node.output] = runners.of(node).run(found)
        return found

    parts = runners.each(run, pieces)
    for node in runners.graph.nodes:
        values[node.output] = np.concatenate([part.pop(node.output) for part in parts])
    return values
