"""The end of a network whose scores can be traced to places: global average pooling, then one linear layer.

Such a score is a bias and the mean of a map over the image (class activation mapping, Zhou et al., CVPR 2016). It is no
estimate: the network adds just these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import NO_CLIP, Array, Graph, Node, QuantParams
from tessera.engine.graph.passes import lower
from tessera.engine.graph.quantisation import dequantise

_POOLING = "GlobalAveragePool"
_RESHAPES = ("Flatten", "Reshape")


class HeatMaps(NamedTuple):
    """Where an image's highest scores come from.

    The score of a class is its bias plus the mean of its map.

    Attributes:
        classes: int64 [k], the highest score first.
        bias: float32 [k].
        values: float32 [k, height, width], from the top left corner of the network's input.
    """

    classes: npt.NDArray[np.int64]
    bias: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Head:
    """Pooling and linear layer of one graph.

    Attributes:
        features: name of the value that is pooled.
        shape: its channels, height and width.
        weights: [classes, channels], as the graph stores them.
        quant: how `weights` are quantised, with scales along the classes; None for float32.
        bias: float32 [classes].
    """

    features: str
    shape: tuple[int, int, int]
    weights: Array
    quant: QuantParams | None
    bias: npt.NDArray[np.float32]

    def explain(
        self, features: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], top: Sequence[int]
    ) -> list[HeatMaps | None]:
        """The maps of the highest scores of a batch's images.

        Args:
            features: [N, channels, height, width], what is pooled.
            scores: [N, classes], what the network made of it.
            top: for every image, of how many classes; 0 for none.
        """
        images = zip(features, scores, top, strict=True)
        return [self._explain(*image) if image[-1] else None for image in images]

    def _explain(self, features: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], top: int) -> HeatMaps:
        classes = (-scores).argsort(kind="stable")[:top]
        bias = self.bias[classes]
        values = self.maps(features, classes)
        # What a session rounds between pooling and score comes from no place: it is spread evenly.
        values += (scores[classes] - bias - values.mean((1, 2)))[:, np.newaxis, np.newaxis]
        return HeatMaps(classes, bias, values.astype(np.float32))

    def maps(self, features: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """float64 [k, height, width]: what each place adds to the scores of `classes`, [k], before any rounding."""
        weights = self.weights[classes]
        if self.quant is not None:
            weights = dequantise(weights, _of_rows(self.quant, classes))
        channels, height, width = features.shape
        flat = features.reshape(channels, height * width).astype(np.float64)
        return (weights.astype(np.float64) @ flat).reshape(-1, height, width)


def find_head(graph: Graph) -> Head | None:
    """The head of a graph with one output, lowered or as the file has it; None where it ends in anything else."""
    tail = _tail(graph)
    if tail is None:
        return None
    try:
        lowered = lower(tail)
    except ModelError:
        return None
    convolutions = [node for node in lowered.nodes if node.op == "Conv"]
    others = [node.op for node in lowered.nodes if node.op not in ("Conv", *_RESHAPES)]
    if len(convolutions) != 1 or others != [_POOLING]:
        return None
    features = lowered.inputs[0]
    shape = tuple(size for size in lowered.values[features].shape[1:] if size is not None)
    return _head(lowered, convolutions[0], features, shape) if len(shape) == 3 else None


def _head(graph: Graph, linear: Node, features: str, shape: tuple[int, int, int]) -> Head | None:
    weights, quant = graph.constants[linear.inputs[1]], graph.values[linear.inputs[1]].quant
    rows = weights.reshape(len(weights), -1)
    pointwise = rows.shape[1] == shape[0] and linear.attrs["groups"] == 1
    if not pointwise or linear.attrs["clip"] != NO_CLIP or any(linear.inputs[3:]) or (quant and quant.axis):
        return None
    if graph.values[graph.outputs[0]].shape != (None, len(rows)):
        return None
    bias = graph.constants[linear.inputs[2]] if linear.inputs[2] else np.zeros(len(rows))
    return Head(features, shape, rows, quant, bias.astype(np.float32))


def _tail(graph: Graph) -> Graph | None:
    """What follows the only global average pooling that all of the output comes through, and that pooling."""
    writers = graph.writers()
    found: set[str] = set()
    pooled: set[str] = set()
    waiting = list(graph.outputs)
    while waiting:
        value = waiting.pop()
        if value in graph.constants or value in found:
            continue
        node = writers.get(value)
        if node is None:  # the image itself
            return None
        found.add(value)
        if node.op == _POOLING:
            pooled.add(node.inputs[0])
        else:
            waiting.extend(node.present_inputs())
    if len(pooled) != 1 or len(graph.outputs) != 1:
        return None
    tail = graph.copy()
    tail.inputs = list(pooled)
    tail.nodes = [node for node in tail.nodes if node.output in found]
    return tail


def _of_rows(quant: QuantParams, rows: npt.NDArray[np.int64]) -> QuantParams:
    if quant.axis is None:
        return quant
    return QuantParams(quant.scale[rows], quant.zero_point[rows], quant.dtype, 0)
