"""The values at the network's end, which are few: of these the whole sample is at hand, not a handful of images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tessera.engine.quantize.network.runners import NodeRunners

Array = NDArray[np.float32]


def tail_values(runners: NodeRunners, vectors: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Run the network's end from where nothing else leads to it.

    Args:
        runners: the float network and what runs its nodes.
        vectors: values of the float network with one number a channel, float32 [n, C, ...]: of some images.

    Returns:
        For each of them that the rest of the network follows from: that value and all behind it.

    Raises:
        ModelError: a node cannot run.
    """
    found = {name: _values_behind(runners, name, start) for name, start in vectors.items()}
    return {name: values for name, values in found.items() if runners.graph.outputs[0] in values}


def _values_behind(runners: NodeRunners, name: str, start: Array) -> dict[str, Array]:
    """What follows from a value alone."""
    values = {name: start}
    for node in runners.graph.nodes:
        read = [other for other in node.present_inputs() if other not in runners.graph.constants]
        if read and all(other in values for other in read):
            values[node.output] = runners.of(node).run(values)
    return values
