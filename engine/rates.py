"""What a multiply-accumulate costs on each class of CPU: constants, so that one class always chooses alike.

Choices that end up in files or answers (which tensors stay out of eight bits, whether bf16 is worth it) are made by
these, not by a measurement at run time, which differs by some per cent from run to run. `python -m benchmarks.rates`
prints the row of the machine that it runs on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tessera.engine import _native
from tessera.engine.machine import cpu_vendor

FloatPrecision = Literal["bf16", "fp32"]

# Bytes a second that a core moves between layers: activations and weights of an image come from L2 and L3.
_BYTES_A_SECOND = 20e9


@dataclass(frozen=True)
class Rates:
    """Register peaks of one core, in GMAC/s.

    Attributes:
        int8: u8 x s8.
        bf16: of the kernel that the engine runs for bf16 there, be it by wider integers or floats.
        fp32: float32.
        origin: date and CPU of the measurement, or "predicted" and from what.
    """

    int8: float
    bf16: float
    fp32: float
    origin: str

    @property
    def faster_float(self) -> FloatPrecision:
        """What layers in floating point run in, where bf16 is accurate enough."""
        return "bf16" if self.bf16 >= self.fp32 else "fp32"

    def seconds(self, macs: int, elements: int, precision: Literal["int8", "bf16", "fp32"]) -> float:
        """Least time of one core for multiply-accumulates and numbers moved, one after the other."""
        size = {"int8": 1, "bf16": 2, "fp32": 4}[precision]
        rate: float = getattr(self, precision)
        return macs / (rate * 1e9) + elements * size / _BYTES_A_SECOND


_SAPPHIRE_RAPIDS = "2026-11-29, Intel Xeon (Sapphire Rapids)"

# By level of `TESSERA_ISA`, the vendor appended where the same instructions differ.
TABLE = {
    "scalar": Rates(5.0, 5.2, 8.1, "2026-11-30, AMD EPYC (Zen 4)"),
    "avx2": Rates(124, 74, 45.9, "2026-11-25, AMD EPYC (Zen 4)"),
    "avxvnni": Rates(280, 125, 70, "2026-12-01, AMD EPYC (Zen 5)"),
    "avx512": Rates(173, 97, 121, "predicted: int8 and bf16 as on AVX2 at 4 GHz, fp32 measured with AMX"),
    "avx512vnni": Rates(353, 176, 89.6, "2026-11-30, Intel Xeon (Ice Lake, 2.8 GHz)"),
    "avx512bf16": Rates(235, 118, 58.8, "2026-11-25, AMD EPYC (Zen 4)"),
    "avx512bf16 GenuineIntel": Rates(485, 58, 121, _SAPPHIRE_RAPIDS),
    "amx": Rates(3600, 1810, 121, _SAPPHIRE_RAPIDS),
    "neon": Rates(5, 5, 21, "predicted: scalar kernels beside NEON's fp32, Neoverse N1 at 2.6 GHz"),
    "dotprod": Rates(166, 5, 21, "predicted: Neoverse N1 at 2.6 GHz, bf16 scalar"),
    "i8mm": Rates(333, 5, 42, "predicted: Neoverse V1 at 2.6 GHz, bf16 scalar"),
}


def rates_here() -> Rates:
    """The rates of this machine's class, at the level that `TESSERA_ISA` allows.

    Raises:
        ValueError: an unknown level in `TESSERA_ISA`.
    """
    return rates_of(_native.isa(), cpu_vendor())


def rates_of(level: str, vendor: str) -> Rates:
    """The rates of a class of CPUs.

    Args:
        level: of `TESSERA_ISA`.
        vendor: as CPUID names it, such as "GenuineIntel".
    """
    return TABLE.get(f"{level} {vendor}", TABLE[level])
