"""What to try next: fewer or more tensors in floating point, by what the attempts at the gate before have measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace

from tessera.engine.quantize.calibration import Calibration
from tessera.engine.quantize.report import Gate, Round
from tessera.engine.rates import Rates

# The next attempt aims at so much beyond what was asked; at so much more where only agreement was missing.
_SPARE_DB, _STEP_DB = 0.4, 0.5
# After the gate is met, at most so many attempts look for what costs less.
_MOST_CHEAPER = 2
# Choices are looked for in such steps of noise.
_FINE_DB = 0.05
# What saves less of the milliseconds is not worth what other images may lose by it.
_LEAST_SAVING = 0.15


def stricter(calibration: Calibration, attempt: Round, gate: Gate, rates: Rates) -> Calibration:
    """With more tensors in floating point after an attempt that failed; the same choice where there are no more."""
    assert attempt.sqnr is not None, "what was not measured meets the gate"
    missing = gate.sqnr - attempt.sqnr
    less = missing + _SPARE_DB if missing > 0 else _STEP_DB
    return _within(calibration, _noise(calibration, calibration.floats) * 10 ** (-less / 10), rates)


def cheaper(
    calibration: Calibration,
    rounds: list[Round],
    gate: Gate,
    rates: Rates,
    check: Callable[[Calibration], Round],
    meets: Callable[[Round], bool],
) -> Calibration:
    """The cheapest choice found that still meets the gate, with something to spare.

    Tensors differ a lot in noise and cost, so what meets a gate after a failure may cost far more than what was
    missing: what lies between both is halved. A tensor whose noise is far more than predicted, because the few images
    looked at do not show what its range cuts off, lets everything else go first, in vain; that comes back here.

    Args:
        calibration: of the last attempt, which met the gate.
        rounds: all attempts; those made here join them, the one that is kept at the end.
        gate: what is asked.
        rates: what tensors in floating point cost here.
        check: makes an attempt.
        meets: whether an attempt meets the gate.

    Returns:
        The calibration of the last of the rounds.
    """
    failed = min((_noise(calibration, attempt.floats) for attempt in rounds[:-1]), default=math.inf)
    for _ in range(_MOST_CHEAPER):
        reached, noise = rounds[-1].sqnr, _noise(calibration, calibration.floats)
        if reached is None or noise == 0 or not calibration.floats:
            break
        most = min(failed, noise * 10 ** ((reached - gate.sqnr - _SPARE_DB) / 10))
        fewer = _between(calibration, noise, most, rates)
        if fewer is None:
            break
        attempt = check(fewer)
        if meets(attempt) and (attempt.sqnr is None or attempt.sqnr >= gate.sqnr + _SPARE_DB):
            calibration = fewer
            rounds.append(attempt)
        else:
            failed = _noise(fewer, fewer.floats)
            rounds.insert(-1, attempt)
    return calibration


def _between(calibration: Calibration, least: float, most: float, rates: Rates) -> Calibration | None:
    """A choice of less cost, its noise between two: the one with most below their middle, else the first above it."""
    worth, found, limit = (1 - _LEAST_SAVING) * _cost(calibration, rates), None, least
    while (limit := limit * 10 ** (_FINE_DB / 10)) < most and (found is None or limit * limit <= least * most):
        choice = _within(calibration, limit, rates)
        if _cost(choice, rates) < worth:
            found = choice
        if not choice.floats:
            break
    return found


def _within(calibration: Calibration, noise: float, rates: Rates) -> Calibration:
    """The choice for another limit of noise, with as many digits as a calibration file keeps."""
    return replace(calibration, noise_limit=float(f"{noise:.6g}")).for_cpu(rates)


def _noise(calibration: Calibration, floats: Collection[str]) -> float:
    """The noise that is predicted of all tensors but those in floating point."""
    return math.fsum(gain.noise for name, gain in calibration.gains.items() if name not in floats)


def _cost(calibration: Calibration, rates: Rates) -> float:
    """Milliseconds that the tensors in floating point cost an image."""
    return math.fsum(calibration.costs(rates).values())
