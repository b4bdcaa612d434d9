"""Numbers with as many digits as a calibration file keeps, so that what is chosen is what is written down."""

from __future__ import annotations

from collections.abc import Iterable

from tessera.engine.quantize.rounding.activations import ActivationRange

RANGE_DIGITS = 6
BIAS_DIGITS = 4


def rounded_range(exact: ActivationRange) -> ActivationRange:
    """The range with as many digits as a calibration file keeps."""
    return ActivationRange(*short((exact.low, exact.high), RANGE_DIGITS))


def rounded_correction(exact: Iterable[float]) -> tuple[float, ...]:
    """Bias corrections with as many digits as a calibration file keeps."""
    return tuple(short(exact, BIAS_DIGITS))


def short(values: Iterable[float], digits: int) -> list[float]:
    """The numbers with so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in values]
