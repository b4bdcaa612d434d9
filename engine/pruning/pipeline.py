"""Pruning from end to end: look at photos, find what layers bear, move the weights that are left, judge the result."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx

from tessera.engine import _native
from tessera.engine.errors import InputError, ModelError
from tessera.engine.graph.ir import Graph
from tessera.engine.graph.writer import to_onnx
from tessera.engine.loading import load
from tessera.engine.pruning.blocks import BLOCK, Block, cheapest, check_share, layers_with_blocks
from tessera.engine.pruning.layer import Flags, PrunableLayer
from tessera.engine.pruning.moments import observe_moments
from tessera.engine.pruning.report import Attempt, LayerReport, PruningReport
from tessera.engine.pruning.sensitivity import allot, measure_sensitivities
from tessera.engine.quantize.measures import agreement, sqnr
from tessera.engine.quantize.network.layers import read_network
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.network.sessions import file_in_memory
from tessera.engine.quantize.observation.observer import chunks
from tessera.engine.quantize.report import Gate
from tessera.engine.session import Session

Array = npt.NDArray[np.float32]
Progress = Callable[[str, float], None]
Tuner = Callable[[onnx.ModelProto], onnx.ModelProto]

# Pruning makes far more noise than eight bits, in directions that change few first classes: agreement alone decides.
GATE = Gate(sqnr=-math.inf)

# The largest share that passes is found to 1 / 2 ** _TRIES.
_TRIES = 5
_SENSITIVE = 8
_BATCH = 16
_TIMED = 5


class Pruner:
    """A float network that can be pruned by any share.

    Args:
        model: float32 ONNX, a file or in memory.
        images: float32 [n, C, H, W], preprocessed as for inference; 64 do well.
        block: output and input channels that become zero together.
        threads: how many; None for as many as the process may use.
        progress: called as `progress(stage, fraction)`.

    Raises:
        ModelError: the model cannot be read, is quantised already, or no layer has blocks.
        InputError: there are no images, or they do not fit the model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | onnx.ModelProto,
        images: Array,
        *,
        block: Block = BLOCK,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        report = progress or (lambda stage, fraction: None)
        if not sum(len(chunk) for chunk in chunks([images])):
            raise InputError("There are no images to prune by. Give at least one; 100 to 500 do well.")
        self._block = block
        self._graph = read_network(model)
        found = layers_with_blocks(self._graph, block)
        # What weights were moved by flatters them, above all in layers with more inputs than pixels were seen.
        held = min(_SENSITIVE, len(images) // 3)
        seen, unseen = images[held:], images[:held] if held else images
        moments = observe_moments(self._graph, [node for node, *_ in found], seen, threads, report)
        self._layers: dict[str, PrunableLayer] = {}
        for index, (node, *names) in enumerate(found):
            report("weighing blocks", index / len(found))
            weights, bias = (self._graph.constants[name] for name in names)
            self._layers[node.output] = PrunableLayer(weights, bias, moments.pop(node.output), block)
        self._names = {node.output: names for node, *names in found}
        _native.trim_heap()
        self.curves = measure_sensitivities(
            NodeRunners(self._graph, threads),
            {node.output: (node, self._layers[node.output]) for node, *_ in found},
            unseen,
            report,
        )

    @property
    def dense(self) -> onnx.ModelProto:
        """The network as it was, batch normalisations folded."""
        return to_onnx(self._graph)

    def zeros(self, share: float) -> dict[str, Flags]:
        """The blocks that become zeros, by layer, so that a share of the multiplications in blocks is saved."""
        prices = {name: float(layer.multiplications * layer.costs.size) for name, layer in self._layers.items()}
        parts = allot(self.curves, prices, share)
        return {name: cheapest({name: layer.costs}, parts[name])[name] for name, layer in self._layers.items()}

    def pruned(self, zeros: dict[str, Flags]) -> onnx.ModelProto:
        """The network with these blocks at zero and the other weights moved to make up for it."""
        graph: Graph = self._graph.copy()
        for name, flags in zeros.items():
            if flags.any():
                changed = self._layers[name].pruned(flags)
                graph.constants.update(zip(self._names[name], changed, strict=True))
        return to_onnx(graph)

    def describe(self, zeros: dict[str, Flags]) -> list[LayerReport]:
        """Every layer, in the network's order."""
        costs = {name: layer.multiplications * layer.costs.size for name, layer in self._layers.items()}
        total = sum(costs.values())
        return [
            LayerReport(name, self.curves[name].noise, float(zeros[name].mean()), costs[name] / total)
            for name in self._layers
        ]


def prune_for_photos(
    model: str | os.PathLike[str] | onnx.ModelProto,
    settling: Array,
    judging: Array,
    *,
    share: float | None = None,
    gate: Gate = GATE,
    tuner: Tuner | None = None,
    block: Block = BLOCK,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[onnx.ModelProto, PruningReport]:
    """Set those blocks of a network's weights to zero that its answers on photos need least.

    Args:
        model: float32 ONNX, a file or in memory.
        settling: images that the choice is made and weights are moved by, float32 [n, C, H, W].
        judging: images that the gate is measured on.
        share: of the multiplications in blocks, 0 to 1; None for the largest that meets the gate.
        gate: what the result must reach against the dense network.
        tuner: trains a pruned model further before it is judged, and leaves its zeros.
        block: output and input channels that become zero together.
        threads: how many; None for as many as the process may use.
        progress: called as `progress(stage, fraction)`.

    Returns:
        The pruned model and the report. A gate that is not met is told in `report.kept`; it is no error.

    Raises:
        ModelError: the model cannot be read, is quantised already, no layer has blocks, or the share is none.
        InputError: there are no images, or they do not fit the model.
    """
    started = time.perf_counter()
    if share is not None:
        check_share(share)
    if not len(judging):
        raise InputError("There are no images to judge a pruned network by. Give at least two in all.")
    report = progress or (lambda stage, fraction: None)
    pruner = Pruner(model, settling, block=block, threads=threads, progress=progress)
    attempts: list[Attempt] = []
    judge = _Judge(pruner.dense, judging, threads, report)

    def attempt(share: float) -> tuple[Attempt, onnx.ModelProto, dict[str, Flags]]:
        report(f"pruning {share:.0%}", 0.0)
        zeros = pruner.zeros(share)
        result = pruner.pruned(zeros)
        if tuner is not None:
            result = tuner(result)
        found = judge.attempt(share, result, gate)
        attempts.append(found)
        return found, result, zeros

    kept, result, zeros = _largest(attempt) if share is None else attempt(share)
    milliseconds = judge.times(result)
    blocks = np.concatenate([flags.ravel() for flags in zeros.values()])
    report("pruned", 1.0)
    return result, PruningReport(
        settled=len(settling),
        checked=len(judging),
        gate=gate,
        attempts=attempts,
        kept=kept,
        blocks=float(blocks.mean()),
        layers=pruner.describe(zeros),
        milliseconds=milliseconds,
        seconds=time.perf_counter() - started,
    )


Tried = tuple[Attempt, onnx.ModelProto, dict[str, Flags]]


def _largest(attempt: Callable[[float], Tried]) -> Tried:
    """The largest share that meets the gate, by bisection; the smallest that was tried where none does."""
    low, high = 0.0, 1.0
    best: Tried | None = None
    for _ in range(_TRIES):
        tried = attempt((low + high) / 2)
        if tried[0].met:
            low, best = tried[0].share, tried
        else:
            high = tried[0].share
            if best is None:
                last = tried
    return last if best is None else best


class _Judge:
    """Runs models on our engine, and compares their answers with the dense network's."""

    def __init__(self, dense: onnx.ModelProto, images: Array, threads: int | None, report: Progress) -> None:
        self._images = images
        self._threads = threads
        self._report = report
        self._dense = _open(dense, threads)
        self._wanted = self._answers(self._dense)
        if self._wanted.ndim != 2:
            raise ModelError(f"The network's result has shape {list(self._wanted.shape)}, not one score a class.")

    def attempt(self, share: float, model: onnx.ModelProto, gate: Gate) -> Attempt:
        with _open(model, self._threads) as session:
            got = self._answers(session)
        noise, same = sqnr(self._wanted, got), agreement(self._wanted, got)
        return Attempt(share, noise, same, gate.is_met(noise, same, len(self._images)))

    def times(self, model: onnx.ModelProto) -> tuple[float, float]:
        """Milliseconds of one image, dense and pruned, the least of some runs in turn."""
        one = self._images[:1]
        found = np.empty((_TIMED, 2))
        with _open(model, self._threads) as session:
            for row in found:
                for column, timed in enumerate((self._dense, session)):
                    start = time.perf_counter()
                    timed.run(one)
                    row[column] = 1e3 * (time.perf_counter() - start)
        dense, pruned = found.min(axis=0)
        return float(dense), float(pruned)

    def _answers(self, session: Session) -> Array:
        parts = []
        for start in range(0, len(self._images), _BATCH):
            self._report("judging", start / len(self._images))
            parts.append(session.run(self._images[start : start + _BATCH]))
        return np.concatenate(parts)


def _open(model: onnx.ModelProto, threads: int | None) -> Session:
    with file_in_memory(model.SerializeToString()) as path:
        return load(path, threads=threads)
