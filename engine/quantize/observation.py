"""One pass of the float network over all calibration images: histograms of its values, its answers, and a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.quantize.float_graph import FloatGraph
from engine.quantize.histogram import Histogram
from engine.quantize.observer import chunks, observe
from engine.quantize.placement import Placement

Array = NDArray[np.float32]

# Of feature maps this wide or wider, every so many rows and columns are counted, other ones from image to image:
# neighbours are alike, and some positions of every image say more than all positions of some.
_STEPS = ((56, 4), (14, 2))


@dataclass
class Observation:
    """What the pass has seen.

    Attributes:
        histograms: the values of every tensor that needs a range.
        images: the sample of the images, float32 [n, C, H, W].
        logits: the float network's answers to the sample, float32 [n, ...].
        seen: how many images there were.
    """

    histograms: dict[str, Histogram]
    images: Array = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))
    logits: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))
    seen: int = 0


def observe_network(
    graph: FloatGraph, placement: Placement, images: Iterable[Array], *, sample: int, threads: int | None
) -> Observation:
    """Run the float network on the images.

    Args:
        graph: the network.
        placement: which of its values need a range.
        images: float32 arrays [n, C, H, W].
        sample: most images to keep; a uniform choice, always the same for the same images.
        threads: threads of the runs; None leaves the choice to ONNX Runtime.

    Raises:
        ModelError: the network cannot be run.
        InputError: there are no images, or they do not fit the network.
    """
    source, output = graph.inputs[0].name, graph.outputs[0].name
    inner = [name for name in placement.ranges_needed() if name != source]
    seen = Observation({name: Histogram() for name in placement.ranges_needed()})
    kept = _Sample(sample)
    fed: list[Array] = []

    def passing() -> Iterator[Array]:
        for chunk in chunks(images):
            fed.append(chunk)
            yield chunk

    # ONNX Runtime is on the next images while the last ones are being counted.
    with ThreadPoolExecutor(1, thread_name_prefix="tessera-count") as counter:
        counting: Future[None] | None = None
        for values in observe(graph.to_model([*inner, output]), passing(), threads):
            chunk = fed.pop(0)
            kept.offer(chunk, values[output])
            if counting is not None:
                counting.result()
            if source in seen.histograms:
                values[source] = chunk
            counting = counter.submit(_count, seen, values)
        if counting is not None:
            counting.result()
    if not seen.seen:
        raise InputError("There are no calibration images. Give at least one; 100 to 500 do well.")
    seen.images, seen.logits = kept.stacked()
    return seen


def _count(seen: Observation, values: dict[str, Array]) -> None:
    for name, histogram in seen.histograms.items():
        batch = values[name]
        histogram.widen(float(batch.min(initial=0.0)), float(batch.max(initial=0.0)))
        for index, image in enumerate(batch, start=seen.seen):
            histogram.add(_thinned(image, index))
    seen.seen += len(next(iter(values.values())))


def _thinned(image: Array, index: int) -> Array:
    if image.ndim != 3:
        return image
    step = next((step for width, step in _STEPS if min(image.shape[1:]) >= width), 1)
    return image[:, index % step :: step, index // step % step :: step]


class _Sample:
    """A fixed-size uniform sample of a stream (reservoir sampling); the same stream always gives the same sample."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._rows: list[tuple[Array, Array]] = []
        self._random = np.random.Generator(np.random.PCG64(0))

    def offer(self, images: Array, logits: Array) -> None:
        for image, answer in zip(images, logits, strict=True):
            self._seen += 1
            if len(self._rows) < self._size:
                self._rows.append((image.copy(), answer.copy()))
            elif self._size and (slot := int(self._random.integers(self._seen))) < self._size:
                self._rows[slot] = (image.copy(), answer.copy())

    def stacked(self) -> tuple[Array, Array]:
        """The images and their answers, in an order that does not depend on where they stood in the stream."""
        if not self._rows:
            return np.empty((0, 0, 0, 0), np.float32), np.empty((0, 0), np.float32)
        order = self._random.permutation(len(self._rows))
        return np.stack([self._rows[i][0] for i in order]), np.stack([self._rows[i][1] for i in order])
