"""Whose turn it is, and who shares a batch with whom."""

from __future__ import annotations

import contextlib

import pytest

from tessera.app.errors import QueueFullError
from tessera.app.scheduling.ticket import Priority, State
from tests.queues import FLAT, STEEP, VARIANTS, make_queue, members, outcomes, put, run


def test_a_large_request_does_not_block_a_small_one() -> None:
    queue, _ = make_queue()
    put(queue, "baseline", 64)
    small = put(queue, "baseline", 1)
    assert small in members(queue.take())


def test_a_large_request_does_not_block_a_small_one_where_batches_are_small() -> None:
    queue, clock = make_queue(FLAT)
    put(queue, "optimised", 64)
    small = put(queue, "optimised", 1)
    for _ in range(9):
        if small in members(run(queue, clock)):
            return
    raise AssertionError("a request of one image waited for more than half a batch")


@pytest.mark.parametrize("costs", [FLAT, STEEP])
def test_a_large_request_is_not_starved_by_a_stream_of_small_ones(costs: dict[str, tuple[float, float]]) -> None:
    queue, clock = make_queue(costs)
    large = put(queue, "baseline", 64)
    ran = 0
    while large.waiting:
        while queue.depth < 150:
            put(queue, "baseline", 1)
        batch = run(queue, clock)
        ran += len(batch)
        assert ran < 1500


def test_variants_take_turns_under_load() -> None:
    queue, clock = make_queue()
    turns = []
    for _ in range(20):
        while queue.depth < 180:
            put(queue, "baseline", 1)
            put(queue, "optimised", 1)
        turns.append(run(queue, clock).variant)
    assert 8 <= turns.count("optimised") <= 12


def test_the_variant_with_least_slack_goes_first() -> None:
    queue, _ = make_queue(FLAT)
    put(queue, "optimised", 1, deadline=3.0)
    put(queue, "baseline", 8, deadline=3.1)  # needs 0.32 s, so it must start before 2.78
    assert queue.take().variant == "baseline"


def test_a_stream_of_urgent_requests_does_not_starve_a_patient_one() -> None:
    queue, clock = make_queue(FLAT)
    patient = put(queue, "baseline", 1, deadline=3600.0)
    while patient.state is State.QUEUED:
        while queue.depth < 8:
            put(queue, "optimised", 1, deadline=clock.now + 1.0, priority=Priority.HIGH)
        run(queue, clock)
        assert clock.now < 6


def test_a_batch_is_no_larger_than_it_is_worth() -> None:
    def batch(costs: dict[str, tuple[float, float]], images: int, deadline: float) -> int:
        queue, _ = make_queue(costs)
        put(queue, "optimised", images, deadline=deadline)
        return len(queue.take())

    assert batch(FLAT, 12, deadline=30.0) == 1, "there is nothing to gain"
    assert batch(STEEP, 12, deadline=30.0) == 12
    assert batch(FLAT, 20, deadline=30.0) == 16, "many wait, and have the time"
    assert batch(FLAT, 20, deadline=0.5) == 1, "0.16 s are too much of the time that they have"


def test_a_batch_is_no_larger_than_its_most_urgent_member_can_wait_for() -> None:
    queue, clock = make_queue(STEEP)
    urgent = put(queue, "optimised", 1, deadline=0.1)
    for _ in range(8):
        put(queue, "optimised", 1)
    batch = run(queue, clock)
    assert urgent in members(batch)
    assert 1 < len(batch) < 9
    assert urgent.state is State.DONE
    assert clock.now <= 0.1


@pytest.mark.parametrize(
    ("abreast", "waiting", "batches"),
    [
        (1, 3, [3]),
        (2, 1, [1]),
        (2, 2, [2]),
        (2, 5, [4, 1]),
        (2, 20, [16, 4]),
        (4, 3, [3]),
        (4, 7, [4, 3]),
        (24, 20, [16, 4]),
    ],
)
def test_no_batch_has_images_that_the_others_would_wait_for(abreast: int, waiting: int, batches: list[int]) -> None:
    queue, clock = make_queue(STEEP, abreast=abreast)
    for _ in range(waiting):
        put(queue, "optimised", 1)
    sizes = []
    while (batch := run(queue, clock)) is not None:
        sizes.append(len(batch))
    assert sizes == batches


@pytest.mark.parametrize("abreast", [1, 2, 3, 4, 6, 24])
@pytest.mark.parametrize("gain", [0.02, 0.05, 0.2])
def test_sixteen_clients_share_batches_of_more_than_four(abreast: int, gain: float) -> None:
    """Where sharing gains anything: `gain` is the cost of a batch over that of one of its images."""
    queue, clock = make_queue({"optimised": (0.01 * gain, 0.01)}, abreast=abreast)
    for _ in range(16):
        put(queue, "optimised", 1)
    sizes = []
    for _ in range(50):
        sizes.append(len(run(queue, clock) or ()))
        for _ in range(sizes[-1]):
            put(queue, "optimised", 1)
    assert max(sizes) <= 16
    assert sum(sizes) / len(sizes) > 4


def test_clients_of_two_variants_share_batches_of_more_than_four_soon() -> None:
    """Eight of each, six requests each, where a batch of two is nearly as good as any."""
    queue, clock = make_queue({"baseline": (0.002, 0.04), "optimised": (0.001, 0.01)}, abreast=2)
    left = dict.fromkeys(VARIANTS, 48 - 8)
    for variant in VARIANTS * 8:
        put(queue, variant, 1)
    sizes = []
    while (batch := run(queue, clock)) is not None:
        sizes.append(len(batch))
        for _ in range(min(len(batch), left[batch.variant])):
            left[batch.variant] -= 1
            put(queue, batch.variant, 1)
    assert sum(sizes) == 96
    assert sum(sizes) / len(sizes) > 4


def test_a_burst_is_not_taken_for_a_crowd() -> None:
    queue, clock = make_queue({"optimised": (0.0005, 0.01)}, abreast=2)
    for _ in range(20):  # one at a time for long
        put(queue, "optimised", 1)
        run(queue, clock)
    for _ in range(8):
        put(queue, "optimised", 1)
    assert len(run(queue, clock) or ()) == 2, "whoever comes next waits for less"


def test_who_comes_while_a_large_request_gives_its_share_goes_before_the_rest_of_it() -> None:
    queue, _ = make_queue({"optimised": (0.0042, 0.01)})  # half a batch is quick enough
    large = put(queue, "optimised", 16)
    batch = queue.take()
    assert len(batch) == 8
    small = put(queue, "optimised", 1)
    queue.finish(batch, outcomes(batch))
    assert members(queue.take()) == {small, large}


def test_one_large_request_is_no_crowd() -> None:
    queue, clock = make_queue({"optimised": (0.0005, 0.01)}, abreast=2)
    put(queue, "optimised", 16)
    for _ in range(6):
        assert len(run(queue, clock) or ()) == 2


def test_inputs_of_different_kinds_do_not_share_a_batch() -> None:
    queue, _ = make_queue(parallel=3)
    put(queue, "baseline", 3, dtype="uint8")
    put(queue, "baseline", 2, dtype="float32")
    batches = [queue.take(), queue.take()]
    assert [(batch.dtype, len(batch)) for batch in batches] == [("uint8", 3), ("float32", 2)]
    assert queue.take() is None


def test_a_cancelled_request_never_reaches_a_batch() -> None:
    queue, _ = make_queue()
    gone, stays = put(queue, "baseline", 3), put(queue, "baseline", 2)
    queue.cancel(gone)
    assert members(queue.take()) == {stays}


def test_expired_requests_are_dropped_before_a_batch_forms() -> None:
    queue, clock = make_queue()
    late, stays = put(queue, "baseline", 3, deadline=1.0), put(queue, "baseline", 2)
    clock.now = 1.0
    assert members(queue.take()) == {stays}
    assert queue.take_dropped() == [late]
    assert late.state is State.EXPIRED


def test_a_request_alone_in_its_batch_keeps_its_rows_in_order() -> None:
    queue, _ = make_queue()
    ticket = put(queue, "baseline", 12)
    assert queue.take().members == tuple((ticket, index) for index in range(12))


def test_a_high_request_goes_before_normal_ones() -> None:
    queue, _ = make_queue(FLAT)
    put(queue, "optimised", 100)
    high = put(queue, "baseline", 1, priority=Priority.HIGH, deadline=0.2)
    assert members(queue.take()) == {high}


def test_background_runs_when_nothing_else_waits_and_one_by_one() -> None:
    queue, clock = make_queue(STEEP)
    shadow = put(queue, "baseline", 3, priority=Priority.BACKGROUND)
    normal = put(queue, "optimised", 1)
    decoding = queue.admit("optimised", 1)
    assert members(run(queue, clock)) == {normal}
    assert queue.take() is None, "the request that is being decoded is waited for"
    queue.cancel(decoding)
    for _ in range(3):
        batch = run(queue, clock)
        assert members(batch) == {shadow}
        assert len(batch) == 1
    assert shadow.state is State.DONE


def test_background_runs_together_what_takes_no_longer_than_one_image_of_the_slowest_variant() -> None:
    queue, clock = make_queue(FLAT, capacity=400)  # 40 ms and 10 ms per image
    for variant, sizes in (("optimised", [4, 4]), ("baseline", [1] * 8)):
        shadow = put(queue, variant, 8, priority=Priority.BACKGROUND)
        put(queue, variant, 8, priority=Priority.BACKGROUND)
        batches = [run(queue, clock) for _ in sizes]
        assert [len(batch) for batch in batches if members(batch) == {shadow}] == sizes
        while run(queue, clock) is not None:
            pass
    unmeasured, _ = make_queue()
    put(unmeasured, "optimised", 9, priority=Priority.BACKGROUND)
    assert len(unmeasured.take()) == 1


def test_background_gets_a_hundredth_while_others_wait() -> None:
    queue, clock = make_queue(FLAT)
    background = 0.0
    while clock.now < 30:
        put(queue, "optimised", 1)
        with contextlib.suppress(QueueFullError):
            put(queue, "baseline", 1, priority=Priority.BACKGROUND)
        batch = run(queue, clock)
        if batch.members[0][0].priority is Priority.BACKGROUND:
            background += queue.table.seconds("baseline", 1)
    assert 0.15 < background <= 0.35


def test_as_many_batches_run_at_once_as_the_engine_can() -> None:
    queue, _ = make_queue(FLAT, parallel=2)
    for _ in range(3):
        put(queue, "optimised", 1)
    first, second = queue.take(), queue.take()
    assert members(first) != members(second)
    assert queue.take() is None
    queue.finish(second, outcomes(second))
    assert queue.take() is not None
    assert queue.take() is None


def test_background_is_alone_in_the_engine_however_much_could_run() -> None:
    queue, clock = make_queue(FLAT, parallel=4)
    put(queue, "baseline", 2, priority=Priority.BACKGROUND)
    shadow = queue.take()
    assert queue.take() is None
    assert queue.wake_at() is None
    normal = put(queue, "optimised", 1)
    assert members(queue.take()) == {normal}
    clock.now += 0.04
    queue.finish(shadow, outcomes(shadow))
    assert queue.take() is not None


def test_a_suspect_has_the_engine_for_itself() -> None:
    queue, _ = make_queue(FLAT, parallel=4)
    put(queue, "optimised", 1)
    innocent = queue.take()
    suspect = put(queue, "optimised", 2, alone=True, priority=Priority.HIGH)
    later = put(queue, "optimised", 1)
    assert queue.take() is None
    queue.finish(innocent, outcomes(innocent))
    for _ in range(2):
        batch = queue.take()
        assert members(batch) == {suspect}
        assert queue.take() is None
        queue.finish(batch, outcomes(batch))
    assert members(queue.take()) == {later}
