"""Which tensors stay in floating point: those that gain most for what they cost on a class of CPUs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tessera.engine.rates import Rates

Fallback = Literal["bf16", "fp32", "none"]


@dataclass(frozen=True)
class Gain:
    """What keeping one tensor, and the layers that read it, in floating point gains, and what it takes.

    Attributes:
        noise: what its eight bits cost: power of the error of the network's result over the power of the result,
            everything else in floating point.
        macs: multiply-accumulates of the layers, of one image.
        elements: numbers of one image that are moved in floating point instead: the tensor, once for its writer and
            once for each reader, and the layers' weights.
        rounded: numbers of one image that the layers write in floating point and a further step reads and rounds.
    """

    noise: float
    macs: int
    elements: int
    rounded: int

    def milliseconds(self, rates: Rates, fallback: Fallback) -> float:
        """What it costs more than eight bits, at least, of one image on one core."""
        precision = "fp32" if fallback == "fp32" else rates.faster_float
        rounding = rates.seconds(0, 2 * self.rounded, precision)
        more = rates.seconds(self.macs, self.elements, precision) - rates.seconds(self.macs, self.elements, "int8")
        return 1e3 * (more + rounding)


def choose_floats(gains: Mapping[str, Gain], noise_limit: float, rates: Rates, fallback: Fallback) -> list[str]:
    """The tensors to keep in floating point so that the noise of all others together stays within a limit.

    Errors of different tensors are taken as independent, so their powers add up. Tensors are taken by the noise that
    they save for the time that they cost. The same numbers always give the same choice.

    Args:
        gains: by tensor.
        noise_limit: most noise power over signal power.
        rates: of the CPU that the network will run on.
        fallback: what "floating point" is.

    Returns:
        In the order of the choice.
    """
    costs = {name: max(gain.milliseconds(rates, fallback), 1e-9) for name, gain in gains.items()}
    chosen: list[str] = []

    def fits(*back: str) -> bool:
        return (
            math.fsum(gain.noise for name, gain in gains.items() if name not in chosen or name in back) <= noise_limit
        )

    for name in sorted(gains, key=lambda name: -gains[name].noise / costs[name]):
        if fits():
            break
        chosen.append(name)
    # What was taken early may be needed no more: the dearest that the limit leaves room for goes back first.
    for name in sorted(chosen, key=lambda name: -costs[name]):
        if fits(name):
            chosen.remove(name)
    return chosen
