"""Who is admitted, who is refused, and when another try makes sense."""

from __future__ import annotations

import pytest

from tessera.app.errors import DeadlineExceededError, DeadlineUnreachableError, QueueFullError
from tessera.app.scheduling.ticket import Priority, State
from tests.queues import FLAT, make_queue, outcomes, put, run


def test_who_expired_is_told_when_another_try_would_be_in_time() -> None:
    queue, clock = make_queue(FLAT)
    late = put(queue, "baseline", 1, deadline=1.0)
    put(queue, "baseline", 100)
    clock.now = 1.0
    queue.take()
    assert queue.take_dropped() == [late]
    assert isinstance(late.failure, DeadlineExceededError)
    assert late.failure.retry_after == 8  # 101 x 0.04 s, twice for caution, of which the request allows 1 s, rounded up


def test_retry_after_follows_the_measured_rate() -> None:
    queue, _ = make_queue({"baseline": (0.0, 0.1), "optimised": (0.0, 0.01)}, capacity=100)
    put(queue, "baseline", 80)
    put(queue, "optimised", 20)
    with pytest.raises(QueueFullError, match="100 of 100 images are waiting") as full:
        queue.admit("optimised", 1)
    assert full.value.retry_after == 9  # 80 x 0.1 s + 20 x 0.01 s, rounded up


def test_what_cannot_be_answered_in_time_is_refused_with_the_wait() -> None:
    queue, _ = make_queue(FLAT)
    put(queue, "baseline", 100, deadline=4.1)  # 4 s, so it goes before the next one
    with pytest.raises(DeadlineUnreachableError, match="may take 80") as refused:
        queue.admit("optimised", 1, deadline=2.0)
    assert refused.value.retry_after == 7
    queue.admit("optimised", 1, deadline=8.5)


def test_a_longer_wait_needs_more_caution() -> None:
    short, _ = make_queue(FLAT)
    put(short, "baseline", 5, deadline=0.3)  # it takes 0.2 s, and goes before the next one
    short.admit("baseline", 1, deadline=1.55 * 0.24)
    long, _ = make_queue(FLAT)
    put(long, "baseline", 24, deadline=1.8)  # 0.96 s
    with pytest.raises(DeadlineUnreachableError):
        long.admit("baseline", 1, deadline=1.9 * 1.0)
    long.admit("baseline", 1, deadline=2.1 * 1.0)


def test_decoding_counts_in_the_prediction() -> None:
    queue, _ = make_queue(FLAT)
    put(queue, "optimised", 1)
    queue.admit("optimised", 10, deadline=0.2)
    queue.decoded(0.05)
    with pytest.raises(DeadlineUnreachableError):
        queue.admit("optimised", 1, deadline=0.2)


def test_a_newcomer_does_not_break_a_promise() -> None:
    queue, clock = make_queue(FLAT)
    first = put(queue, "optimised", 10, deadline=0.1095)
    with pytest.raises(DeadlineUnreachableError, match="miss its own"):
        queue.admit("optimised", 1, deadline=0.0185)  # it would be in time itself, at the cost of the first
    while first.state is State.QUEUED:
        run(queue, clock)
    assert first.state is State.DONE


def test_an_engine_that_hangs_is_not_promised_to_be_free() -> None:
    queue, clock = make_queue(FLAT)
    put(queue, "optimised", 1)
    queue.take()
    queue.admit("optimised", 1, deadline=clock.now + 0.1)
    clock.now = 5.0
    with pytest.raises(DeadlineUnreachableError):
        queue.admit("optimised", 1, deadline=clock.now + 0.1)
    assert queue.snapshot().running_seconds == 5.0


def test_a_table_that_a_bad_moment_spoilt_corrects_itself() -> None:
    queue, clock = make_queue({"optimised": (0.0, 0.01)})
    ticket = put(queue, "optimised", 1)
    batch = queue.take()
    clock.now += 30.0
    queue.finish(batch, outcomes(batch))
    assert queue.table.rows("optimised")[1].mean > 1
    for _ in range(100):
        ticket = put(queue, "optimised", 1, deadline=clock.now + 0.5)
        batch = queue.take()
        clock.now += 0.01
        queue.finish(batch, outcomes(batch))
        assert ticket.state is State.DONE
    assert queue.table.tail("optimised", 1) < 0.1
    assert queue.table.rows("optimised")[1].mean < 0.1


def test_a_machine_that_was_busy_when_measured_is_tried_again() -> None:
    queue, clock = make_queue({"optimised": (0.0, 0.03)})
    for _ in range(60):  # in truth it takes 10 ms, and everyone allows 15 ms
        ticket = put(queue, "optimised", 1, deadline=clock.now + 0.015)
        batch = queue.take()
        clock.now += 0.01
        assert queue.finish(batch, outcomes(batch)) == [ticket]
    assert queue.table.seconds("optimised", 1) < 0.011


def test_background_does_not_take_the_room_of_others() -> None:
    queue, _ = make_queue(capacity=16)
    put(queue, "baseline", 2, priority=Priority.BACKGROUND)
    with pytest.raises(QueueFullError):
        queue.admit("baseline", 1, priority=Priority.BACKGROUND)
    put(queue, "baseline", 16)


def test_room_can_be_asked_for_without_a_variant() -> None:
    queue, _ = make_queue({"baseline": (0.0, 10.0), "optimised": (0.0, 0.01)})
    queue.check_room(deadline=1.0)
    with pytest.raises(DeadlineUnreachableError):
        queue.check_room("baseline", deadline=1.0)
    with pytest.raises(DeadlineUnreachableError):
        queue.check_room(deadline=0.001)


@pytest.mark.parametrize(("parallel", "seconds"), [(1, 0.04 + 9 * 0.04), (2, 0.04 + 5 * 0.04), (4, 0.04 + 3 * 0.04)])
def test_promises_count_on_all_that_runs_at_once(parallel: int, seconds: float) -> None:
    """Every place runs a batch of 40 ms that has just begun, and 8 images of 40 ms wait."""
    queue, _ = make_queue(FLAT, parallel=parallel)
    for _ in range(parallel):
        put(queue, "baseline", 1)
        queue.take()
    for _ in range(8):
        put(queue, "baseline", 1, deadline=3600.0)
    predicted = queue.snapshot().variants["baseline"].predicted_seconds
    assert seconds <= predicted <= 1.65 * seconds
