"""What pruning did, and why: plain data."""

from __future__ import annotations

from dataclasses import dataclass

from tessera.engine.quantize.report import Gate


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        name: its output.
        noise: at the network's end, over the signal there, where the layer by itself loses the shares of
            `tessera.engine.pruning.sensitivity.PROBED`.
        zeros: share of its blocks that are zeros, 0 to 1.
        share: of the multiplications of all layers that have blocks, 0 to 1.
    """

    name: str
    noise: tuple[float, float]
    zeros: float
    share: float


@dataclass(frozen=True)
class Attempt:
    """A share that was tried.

    Attributes:
        share: of the multiplications in blocks, 0 to 1.
        sqnr: of the pruned network's answers against the dense one's, in dB.
        agreement: share of images with the same first class, 0 to 1.
        met: whether the gate holds.
    """

    share: float
    sqnr: float
    agreement: float
    met: bool


@dataclass(frozen=True)
class PruningReport:
    """The whole story of one pruning.

    Attributes:
        settled: images that weights were moved by.
        checked: images that the gate was measured on.
        gate: what was asked.
        attempts: every share that was tried, in turn.
        kept: the one that the result has; where none meets the gate, the last.
        blocks: share of all blocks that are zeros, 0 to 1.
        layers: every layer that has blocks, in the network's order.
        milliseconds: of an image by itself, here, in fp32 on our engine, dense and pruned; the least of some runs.
        seconds: how long it took.
    """

    settled: int
    checked: int
    gate: Gate
    attempts: list[Attempt]
    kept: Attempt
    blocks: float
    layers: list[LayerReport]
    milliseconds: tuple[float, float]
    seconds: float

    @property
    def saved(self) -> float:
        """The share of the multiplications in blocks that zeros take, 0 to 1; near what was asked for."""
        return sum(layer.zeros * layer.share for layer in self.layers)
