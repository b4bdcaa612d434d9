"""One pass of the float network over all calibration images: histograms of its values, its answers, and a sample."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from tessera.engine import _native
from tessera.engine.budget import cpu_budget
from tessera.engine.errors import InputError
from tessera.engine.graph.ir import Graph
from tessera.engine.quantize.observation.channels import channel_means, thinned
from tessera.engine.quantize.observation.histogram import Histogram
from tessera.engine.quantize.observation.observer import Observer, chunks
from tessera.engine.quantize.placement.corrections import corrected_values
from tessera.engine.quantize.placement.values import Placement

Array = NDArray[np.float32]
Histograms = dict[str, Histogram]

# What is kept of each image lies between what is not; after so many the system gets the rest back.
_TRIMMED = 16


@dataclass
class Observation:
    """What the pass has seen.

    Attributes:
        histograms: the values of every tensor that needs a range.
        images: the sample of the images, float32 [n, C, H, W].
        logits: the float network's answers to the sample, float32 [n, ...].
        means: by value, the mean of each channel in each image of the sample, float32 [n, C].
        vectors: the values with one number a channel that need a range, of the sample, float32 [n, C, ...].
        seen: how many images there were.
    """

    histograms: Histograms
    images: Array = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))
    logits: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))
    means: dict[str, Array] = field(default_factory=dict)
    vectors: dict[str, Array] = field(default_factory=dict)
    seen: int = 0


def observe_network(
    graph: Graph, placement: Placement, images: Iterable[Array], *, sample: int, threads: int | None
) -> Observation:
    """Run the float network on the images.

    Args:
        graph: the network.
        placement: which of its values need a range.
        images: float32 arrays [n, C, H, W].
        sample: most images to keep; a uniform choice, always the same for the same images.
        threads: how many; None for as many as the process may use.

    Raises:
        ModelError: the network cannot be run.
        InputError: there are no images, or they do not fit the network.
    """
    workers = threads or cpu_budget()
    counted = _Pass(graph, placement, workers)
    kept = _Sample(sample)
    seen = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="tessera-observe") as pool:
        running: deque[Future[list[_Row]]] = deque()
        for chunk in chunks(images):
            running.append(pool.submit(counted.run, chunk, seen))
            seen += len(chunk)
            if len(running) > 2 * workers:
                kept.offer(running.popleft().result())
            if seen % _TRIMMED == 0:
                _native.trim_heap()
        for future in running:
            kept.offer(future.result())
    if not seen:
        raise InputError("There are no calibration images. Give at least one; 100 to 500 do well.")
    histograms = counted.histograms()
    del counted  # with its session, before the sample is copied
    rows = kept.rows()
    means = {name: np.stack([row.means[name] for row in rows]) for name in rows[0].means} if rows else {}
    vectors = {name: np.stack([row.vectors[name] for row in rows]) for name in rows[0].vectors} if rows else {}
    observation = Observation(histograms, means=means, vectors=vectors, seen=seen)
    if rows:
        observation.logits = np.stack([row.answer for row in rows])
        observation.images = np.empty((len(rows), *rows[0].image.shape), np.float32)
        for index in reversed(range(len(rows))):  # the sample is never there twice
            observation.images[index] = rows.pop().image
    _native.trim_heap()
    return observation


class _Pass:
    """The float network with the values that are wanted, and histograms that several threads fill."""

    def __init__(self, graph: Graph, placement: Placement, threads: int) -> None:
        self._source, self._output = graph.inputs[0], graph.outputs[0]
        self._ranged = placement.ranges_needed()
        self._non_negative = placement.non_negative
        self._corrected = list(corrected_values(graph, placement))
        inner = dict.fromkeys(name for name in (*self._ranged, *self._corrected) if name != self._source)
        self._observer = Observer(graph, [*inner, self._output])
        self._sets = [{name: Histogram() for name in self._ranged} for _ in range(threads)]
        self._free: SimpleQueue[Histograms] = SimpleQueue()
        for histograms in self._sets:
            self._free.put(histograms)

    def run(self, images: Array, seen: int) -> list[_Row]:
        """What is kept of each image, if the sample takes it; counts its values in histograms.

        Args:
            images: float32 [n, C, H, W].
            seen: how many images were before them.
        """
        values = self._observer.run(images)
        values[self._source] = images
        histograms = self._free.get()
        try:
            for name in self._ranged:
                batch, histogram = values[name], histograms[name]
                low = 0.0 if name in self._non_negative else float(batch.min(initial=0.0))
                histogram.widen(low, float(batch.max(initial=0.0)))
                for index in range(len(batch)):
                    histogram.add(thinned(batch[index : index + 1], seen + index))
        finally:
            self._free.put(histograms)
        means = {name: channel_means(values[name]) for name in self._corrected}
        vectors = {name: values[name].copy() for name in self._ranged if _is_vector(values[name])}
        answers = values[self._output].copy()
        return [
            _Row(image.copy(), answer, _of_image(means, index), _of_image(vectors, index))
            for index, (image, answer) in enumerate(zip(images, answers, strict=True))
        ]

    def histograms(self) -> Histograms:
        """All that was counted."""
        first, *others = self._sets
        for histograms in others:
            for name, histogram in histograms.items():
                first[name].merge(histogram)
        return first


@dataclass(frozen=True)
class _Row:
    image: Array
    answer: Array
    means: dict[str, Array]
    vectors: dict[str, Array]


def _is_vector(batch: Array) -> bool:
    """Whether values [n, C, ...] have one number for each channel."""
    return batch.ndim > 1 and batch[0].size == batch.shape[1]


def _of_image(values: dict[str, Array], index: int) -> dict[str, Array]:
    return {name: batch[index] for name, batch in values.items()}


class _Sample:
    """A fixed-size uniform sample of a stream (reservoir sampling); the same stream always gives the same sample."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._rows: list[_Row] = []
        self._random = np.random.Generator(np.random.PCG64(0))

    def offer(self, rows: Iterable[_Row]) -> None:
        for row in rows:
            self._seen += 1
            if len(self._rows) < self._size:
                self._rows.append(row)
            elif self._size and (slot := int(self._random.integers(self._seen))) < self._size:
                self._rows[slot] = row

    def rows(self) -> list[_Row]:
        """The sample, given away, in an order that does not depend on where its images stood in the stream."""
        rows, self._rows = self._rows, []
        return [rows[index] for index in self._random.permutation(len(rows))]
