"""The register peak: what utilisation is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import _native
from engine.chips import find_chip

if TYPE_CHECKING:
    from engine.session import Session

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


def session_peak(session: Session) -> float | None:
    """Multiply-accumulates a second that a session's hardware reaches at most in its precision.

    Measured for the CPU; by clock and cube units for Ascend, all devices of the session together. None where it is not
    known: for a chip that is not in `engine.chips`.
    """
    info = session.describe()
    if info.backend != "ascend":
        return measure_peak(info.precision, info.threads)
    chip = find_chip(info.isa)
    return None if chip is None else chip.peak(info.precision) * max(1, len(session.devices()))
