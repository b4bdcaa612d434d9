"""The guard on simulated streams: it detects, it does not cry wolf, it does not flap."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.app.routing.guard import (
    ALARM_LEVEL,
    MIN_SAMPLES,
    Guard,
    GuardState,
    smallest_recovery_window,
)
from tessera.models.evaluation.intervals import binomial_at_most

BOUND = 0.98
WINDOW = 500


def guard(*, automatic: bool = False, window: int = WINDOW, bound: float = BOUND) -> Guard:
    return Guard(bound, window, automatic=automatic, clock=lambda: 1_800_000_000.0)


def comparisons_until_trip(watching: Guard, agreement: float, chance: random.Random, limit: int) -> int | None:
    for number in range(1, limit + 1):
        if watching.observe(chance.random() < agreement) is not None:
            return number
    return None


def test_false_alarms_at_the_bound_are_as_rare_as_the_level_says() -> None:
    # 40 runs of 5,000 comparisons with an agreement of exactly the bound: expected at most 200,000 * 1e-6 = 0.2 trips.
    # A 95 % Wilson interval looked at after every comparison trips in all of these runs.
    trips = sum(comparisons_until_trip(guard(), BOUND, random.Random(seed), 5000) is not None for seed in range(40))
    assert trips <= 1


def test_a_healthy_variant_never_trips_it() -> None:
    assert comparisons_until_trip(guard(), 0.995, random.Random(1), 50_000) is None


@pytest.mark.parametrize(("agreement", "within"), [(0.1, MIN_SAMPLES), (0.5, 40), (0.8, 150), (0.9, 500)])
def test_a_wrong_variant_is_detected(agreement: float, within: int) -> None:
    found = [comparisons_until_trip(guard(), agreement, random.Random(seed), within) for seed in range(100)]
    assert sum(number is not None for number in found) >= 95, found


@pytest.mark.parametrize(("agreement", "within"), [(0.0, 60), (0.5, 120), (0.8, 300)])
def test_a_variant_that_goes_wrong_is_detected_behind_a_window_of_good_ones(agreement: float, within: int) -> None:
    for seed in range(20):
        chance, watching = random.Random(seed), guard()
        assert comparisons_until_trip(watching, 0.995, chance, WINDOW) is None
        assert comparisons_until_trip(watching, agreement, chance, within) is not None


@given(st.lists(st.booleans(), max_size=300), st.floats(0.6, 0.999), st.integers(MIN_SAMPLES, 100))
def test_it_trips_at_the_first_window_that_is_too_unlikely(agreed: list[bool], bound: float, window: int) -> None:
    watching = guard(window=window, bound=bound)
    expected = None
    for end in range(MIN_SAMPLES, len(agreed) + 1):
        seen = agreed[max(0, end - window) : end]
        if binomial_at_most(sum(seen), len(seen), bound) < ALARM_LEVEL:
            expected = end
            break
    tripped = next((number for number, agrees in enumerate(agreed, 1) if watching.observe(agrees)), None)
    assert tripped == expected
    assert (watching.state is GuardState.TRIPPED) == (expected is not None)


@pytest.mark.parametrize(("bound", "good"), [(0.98, 100), (0.9, 50), (0.6, 30)])
def test_it_trips_at_the_very_comparison_that_is_one_too_many(bound: float, good: int) -> None:
    watching = guard(bound=bound)
    assert not any(watching.observe(True) for _ in range(good))
    wrong = next(count for count in range(1, 500) if binomial_at_most(good, good + count, bound) < ALARM_LEVEL)
    assert [watching.observe(False) is not None for _ in range(wrong)] == [False] * (wrong - 1) + [True]


def test_a_repeated_image_counts_once() -> None:
    watching = guard()
    for _ in range(1000):
        watching.observe(False, b"the same photo")
    assert (watching.samples, watching.state) == (1, GuardState.WATCHING)
    for number in range(1, MIN_SAMPLES):
        watching.observe(False, b"%d" % number)
    assert watching.state is GuardState.TRIPPED


def test_an_image_counts_again_once_it_has_left_the_window() -> None:
    watching = guard(window=MIN_SAMPLES)
    for number in [*range(MIN_SAMPLES + 1), 0]:
        watching.observe(True, b"%d" % number)
    assert watching.samples == MIN_SAMPLES
    watching.observe(True, b"%d" % MIN_SAMPLES)
    assert watching.samples == MIN_SAMPLES


def test_manual_recovery_means_manual() -> None:
    watching = guard()
    assert comparisons_until_trip(watching, 0.0, random.Random(0), 100) == MIN_SAMPLES
    assert all(watching.observe(True) is None for _ in range(20 * WINDOW))
    assert watching.state is GuardState.TRIPPED
    event = watching.reset("by hand")
    assert (event.event, watching.state, watching.samples) == ("reset", GuardState.WATCHING, 0)
    assert [event.event for event in watching.history] == ["tripped", "reset"]


def test_automatic_recovery_takes_a_full_fresh_window_and_twice_that_after_the_next_trip() -> None:
    watching = guard(automatic=True)
    for windows in (1, 2, 4, 8, 16, 16):
        assert comparisons_until_trip(watching, 0.0, random.Random(0), 100) == MIN_SAMPLES
        events = [watching.observe(True) for _ in range(windows * WINDOW)]
        assert events[:-1] == [None] * (windows * WINDOW - 1)
        assert events[-1] is not None
        assert (events[-1].event, watching.state) == ("recovered", GuardState.WATCHING)


def test_it_does_not_flap_at_the_bound() -> None:
    watching, chance = guard(automatic=True), random.Random(11)
    comparisons_until_trip(watching, 0.0, chance, 100)
    events = [watching.observe(chance.random() < BOUND) for _ in range(30_000)]
    assert sum(event is not None for event in events) <= 1


def test_an_unhealthy_variant_does_not_recover() -> None:
    for seed in range(20):
        watching, chance = guard(automatic=True), random.Random(seed)
        comparisons_until_trip(watching, 0.0, chance, 100)
        assert not any(watching.observe(chance.random() < 0.97) for _ in range(5 * WINDOW))


def test_the_reason_is_a_sentence_with_figures() -> None:
    watching = guard()
    for number in range(30):
        watching.observe(number < 10)
    (event,) = watching.history
    assert event.why.startswith("Only 10 of the last 20 compared images got the same top label")
    assert "0.98, the bound" in event.why
    assert event.agreement is not None
    assert event.agreement.value == pytest.approx(0.5)
    assert event.samples == 20


@pytest.mark.parametrize("bound", [0.9, 0.98, 0.995])
def test_the_smallest_recovery_window_is_enough_and_no_more(bound: float) -> None:
    smallest = smallest_recovery_window(bound)
    for window, recovers in ((smallest, True), (smallest - 1, False)):
        watching = guard(automatic=True, window=window, bound=bound)
        while not watching.observe(False):
            pass
        assert any(watching.observe(True) for _ in range(window)) is recovers
