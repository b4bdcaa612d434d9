"""The limits of this machine, measured: what a layer's time is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from tessera.engine import _native
from tessera.engine.machine import cache_sizes

_DTYPES = {"int8": _native.U8, "bf16": _native.BF16, "fp32": _native.F32}


def measure_peak(precision: str, threads: int = 1) -> float:
    """Multiply-accumulates a second that this machine reaches when operands never leave the registers.

    Measured now, on `threads` threads at once, with the best instruction that `TESSERA_ISA` allows; takes about 0.15 s.

    Args:
        precision: "int8", "bf16" or "fp32".
        threads: at least 1.

    Raises:
        ValueError: an unknown precision or number of threads.
    """
    if precision not in _DTYPES:
        raise ValueError(f"Unknown precision '{precision}'; use int8, bf16 or fp32.")
    return _native.measure_peak(_DTYPES[precision], threads)


_USUAL_L2_BYTES = 1 << 20


@dataclass(frozen=True)
class ReadRates:
    """How fast cores read, in bytes a second of all threads together.

    Attributes:
        l2_bytes: of a core.
        within: while what they read stays in their L2.
        beyond: from behind it.
    """

    l2_bytes: int
    within: float
    beyond: float

    def of(self, working_set: int) -> float:
        """The rate for so many bytes that are read again and again."""
        return self.within if working_set <= self.l2_bytes else self.beyond


def measure_reads(threads: int = 1) -> ReadRates:
    """How fast this machine reads now, on `threads` threads at once; takes about 0.3 s.

    Each reads a quarter of an L2, for two threads may share one, and eight of them.

    Args:
        threads: at least 1.

    Raises:
        ValueError: an unknown number of threads.
    """
    l2 = cache_sizes().get("L2", _USUAL_L2_BYTES)
    return ReadRates(l2, _native.measure_reads(l2 // 4, threads), _native.measure_reads(8 * l2, threads))
