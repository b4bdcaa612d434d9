"""Means and covariances, over photos, of the numbers that convolutions read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tessera.engine.budget import cpu_budget
from tessera.engine.graph.ir import Graph, Node
from tessera.engine.quantize.observation.observer import Observer

Array = npt.NDArray[np.float32]

# Of outputs this wide or wider, every so many rows and columns are looked at: neighbours are alike.
_STEPS = ((56, 4), (28, 2))


@dataclass
class Moments:
    """Of the numbers that one output of a convolution reads: D = taps * input channels, of each tap all channels.

    Attributes:
        products: float32 [D, D], sums of the products of every two.
        sums: float64 [D].
        seen: outputs that were looked at.
        outputs: outputs that a channel of an image has.
    """

    products: Array
    sums: npt.NDArray[np.float64]
    seen: int = 0
    outputs: int = 0

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """float64 [D]."""
        return self.sums / self.seen

    @property
    def covariance(self) -> npt.NDArray[np.float64]:
        """float64 [D, D]."""
        return self.products / np.float64(self.seen) - np.outer(self.mean, self.mean)


def observe_moments(
    graph: Graph, layers: Sequence[Node], images: Array, threads: int | None, report: Callable[[str, float], None]
) -> dict[str, Moments]:
    """Run a float network on images, and look at what its convolutions read.

    Args:
        graph: the network.
        layers: its convolutions that are looked at.
        images: float32 [n, C, H, W].
        threads: how many; None for as many as the process may use.
        report: called as `report(stage, fraction)`.

    Returns:
        By layer, named by its output. Layers that read the same numbers have the same object.

    Raises:
        ModelError: ONNX Runtime cannot load the network.
        InputError: the images do not fit it.
    """
    source = graph.inputs[0]
    kinds = {_kind(layer): layer for layer in layers}
    inner = [layer.inputs[0] for layer in layers if layer.inputs[0] != source]
    observer = Observer(graph, dict.fromkeys((*inner, *graph.outputs)))  # where all layers read images, inner is empty
    found: dict[tuple[object, ...], Moments] = {}

    def add(image: Array, values: dict[str, Array]) -> None:
        values[source] = image
        for kind, layer in kinds.items():
            rows, outputs = _read_by(layer, values[layer.inputs[0]])
            if kind not in found:
                size = rows.shape[1]
                found[kind] = Moments(np.zeros((size, size), np.float32), np.zeros(size), outputs=outputs)
            moments = found[kind]
            moments.products += rows.T @ rows
            moments.sums += rows.sum(axis=0, dtype=np.float64)
            moments.seen += len(rows)

    workers = threads or cpu_budget()
    running: deque[tuple[Array, Future[dict[str, Array]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="tessera-prune") as pool:
        for index in range(len(images)):
            image = images[index : index + 1]
            running.append((image, pool.submit(observer.run, image)))
            while len(running) > workers or (running and index + 1 == len(images)):
                first, future = running.popleft()
                add(first, future.result())
            report("observing activations", (index + 1) / len(images))
    return {layer.output: found[_kind(layer)] for layer in layers}


def _kind(layer: Node) -> tuple[object, ...]:
    return (layer.inputs[0], *(layer.attrs[key] for key in ("kernel", "strides", "pads", "dilations")))


def _read_by(layer: Node, values: Array) -> tuple[Array, int]:
    """What some outputs of a convolution read, float32 [outputs looked at, D], and how many there are in one image."""
    top, left, bottom, right = layer.attrs["pads"]
    (height, width), (down, along) = layer.attrs["kernel"], layer.attrs["dilations"]
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = ((height - 1) * down + 1, (width - 1) * along + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))[..., ::down, ::along]
    windows = windows[:, :, :: layer.attrs["strides"][0], :: layer.attrs["strides"][1]]
    rows, columns = windows.shape[2:4]
    step = next((step for least, step in _STEPS if min(rows, columns) >= least), 1)
    looked_at = windows[:, :, ::step, ::step].transpose(0, 2, 3, 4, 5, 1)
    return np.ascontiguousarray(looked_at).reshape(-1, height * width * values.shape[1]), rows * columns
