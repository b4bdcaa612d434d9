"""After a failure the next attempt may go too far: what is kept in the end costs little more than the gate needs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.engine.quantize import Gate
from tessera.engine.quantize.attempts import cheaper, stricter
from tessera.engine.quantize.calibration import Calibration
from tessera.engine.quantize.placement.floats import Gain
from tessera.engine.quantize.report import Round
from tessera.engine.quantize.settlement.sensitivity import decibels
from tessera.engine.rates import Rates

RATES = Rates(int8=100, bf16=50, fp32=25, origin="made up")
GATE = Gate(sqnr=30.0, agreement=0.98)
# As in ImageNet's network on AVX2: what it takes to get past a tensor of much noise and cost is the next one alike.
GAINS = {
    "projection": Gain(4.0e-5, 8 * 10**6, 0, 0),
    "stem": Gain(2.1e-4, 63 * 10**6, 0, 0),
    "pool": Gain(4.0e-5, 11 * 10**6, 0, 0),
    "input": Gain(2.2e-4, 82 * 10**6, 0, 0),
    "late": Gain(1.5e-5, 12 * 10**6, 0, 0),
    **{f"layer{number}": Gain(2.0e-5, 2 * 10**7, 0, 0) for number in range(20)},
}


class Network:
    """Stands for measuring: the noise is what is predicted, some dB more, and what one tensor has beyond that."""

    def __init__(self, worse: float, gains: dict[str, Gain], surprise: tuple[str, float] = ("", 0.0)) -> None:
        self.worse = worse
        self.gains = gains
        self.surprise = surprise
        self.attempts: list[Calibration] = []

    def check(self, calibration: Calibration) -> Round:
        self.attempts.append(calibration)
        left = math.fsum(gain.noise for name, gain in self.gains.items() if name not in calibration.floats)
        left += self.surprise[1] * (self.surprise[0] not in calibration.floats)
        return Round(calibration.floats, decibels(left) - self.worse, 1.0)


def meets(attempt: Round) -> bool:
    return attempt.sqnr is None or attempt.sqnr >= GATE.sqnr


def cost(calibration: Calibration) -> float:
    return sum(calibration.costs(RATES).values())


def calibrated(predicted: float, gains: dict[str, Gain]) -> Calibration:
    return Calibration({}, gains=gains, noise_limit=10 ** (-predicted / 10)).for_cpu(RATES)


def settled(network: Network, first: Calibration) -> tuple[Calibration, list[Round]]:
    """The quantiser's loop: stricter until the gate is met, cheaper from there."""
    calibration, rounds = first, [network.check(first)]
    while not meets(rounds[-1]):
        calibration = stricter(calibration, rounds[-1], GATE, RATES)
        rounds.append(network.check(calibration))
    return cheaper(calibration, rounds, GATE, RATES, network.check, meets), rounds


def test_what_was_taken_in_vain_before_the_tensor_that_mattered_goes_back() -> None:
    network = Network(1.0, GAINS, surprise=("late", 9e-4))
    kept, rounds = settled(network, calibrated(31.35, GAINS))
    passed = next(attempt for attempt in network.attempts if meets(network.check(attempt)))
    assert network.attempts[0] != passed
    assert cost(kept) < 0.8 * cost(passed)
    assert rounds[-1] == network.check(kept)
    assert meets(rounds[-1])


def test_a_gate_that_is_just_met_takes_no_further_attempt() -> None:
    network = Network(1.0, GAINS)
    kept, rounds = settled(network, calibrated(31.35, GAINS))
    assert len(rounds) == 1
    assert kept == network.attempts[0]


@pytest.mark.parametrize("sqnr", [None, math.inf])
def test_what_cannot_be_measured_is_left_as_it_is(sqnr: float | None) -> None:
    def check(calibration: Calibration) -> Round:
        return Round(calibration.floats, sqnr, None)

    first = calibrated(31.35, GAINS)
    rounds = [check(first)]
    kept = cheaper(first, rounds, GATE, RATES, check, lambda attempt: True)
    assert (kept == first) == (sqnr is None)
    assert rounds[-1].floats == kept.floats


@given(
    worse=st.floats(-2, 5),
    rows=st.lists(st.tuples(st.floats(1e-7, 1e-3), st.integers(1, 10**9)), min_size=1, max_size=12),
)
def test_what_is_kept_meets_the_gate_and_costs_no_more_than_any_other_attempt_that_did(
    worse: float, rows: list[tuple[float, int]]
) -> None:
    gains = {str(number): Gain(noise, macs, 0, 0) for number, (noise, macs) in enumerate(rows)}
    network = Network(worse, gains)
    first = calibrated(31.35 + worse, gains)
    if not meets(network.check(first)):
        first = calibrated(36, gains)
    rounds = [network.check(first)]
    before = len(network.attempts)
    kept = cheaper(first, rounds, GATE, RATES, network.check, meets)
    assert len(network.attempts) - before <= 2
    assert len(rounds) == 1 + len(network.attempts) - before
    assert rounds[-1].floats == kept.floats
    assert meets(rounds[-1])
    assert all(cost(kept) <= cost(other) for other in network.attempts[before:] if meets(network.check(other)))
    assert kept.for_cpu(RATES) == kept
