"""The register peak: what utilisation is measured against."""

from __future__ import annotations

from tessera.engine import _native

_DTYPES = {"int8": _native.U8, "bf16": _native.BF16, "fp32": _native.F32}


def measure_peak(precision: str, threads: int = 1) -> float:
    """Multiply-accumulates a second that this machine reaches when operands never leave the registers.

    Measured now, on `threads` threads at once, with the best instruction that `TESSERA_ISA` allows; takes about 0.2 s.

    Args:
        precision: "int8", "bf16" or "fp32".
        threads: at least 1.

    Raises:
        ValueError: an unknown precision or number of threads.
    """
    if precision not in _DTYPES:
        raise ValueError(f"Unknown precision '{precision}'; use int8, bf16 or fp32.")
    return _native.measure_peak(_DTYPES[precision], threads)
