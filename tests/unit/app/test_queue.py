"""The queue's rules, explored by Hypothesis: nothing lost, nothing twice, nobody starved, bounds and deadlines kept."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.errors import DeadlineExceededError, DeadlineUnreachableError, QueueFullError
from app.scheduling.queue import ImageQueue
from app.scheduling.ticket import Batch, InputType, Outcome, Priority, State, Ticket

CAPACITY = 40
BACKGROUND_CAPACITY = 5
MAX_BATCH = 16
VARIANTS = ("baseline", "optimised")
SECONDS_PER_IMAGE = {"baseline": 0.04, "optimised": 0.01}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rows(images: int) -> np.ndarray:
    return np.zeros((images, 1), np.uint8)


def outcomes(batch: Batch, failing: frozenset[int] = frozenset()) -> list[Outcome]:
    return [
        Outcome(
            np.array([id(ticket), index]) if place not in failing else None,
            RuntimeError("no") if place in failing else None,
            0.0,
            0.1,
            len(batch),
        )
        for place, (ticket, index) in enumerate(batch.members)
    ]


class QueueMachine(RuleBasedStateMachine):
    """Requests come, are decoded, leave early, expire; batches are taken, and finish or fail in any order.

    How many may run at once changes, as when devices leave the rotation and come back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.parallel = 1
        self.queue = ImageQueue(
            VARIANTS, capacity=CAPACITY, max_batch=MAX_BATCH, clock=self.clock, parallel=lambda: self.parallel
        )
        self.admitted: list[Ticket] = []
        self.queued: list[Ticket] = []
        self.cancelled: set[Ticket] = set()
        self.delivered: list[Ticket] = []
        self.expired: list[Ticket] = []
        self.failed: set[tuple[Ticket, int]] = set()
        self.taken: set[tuple[Ticket, int]] = set()
        self.passed_over: dict[Ticket, int] = {}
        self.running: list[Batch] = []

    @initialize(measured=st.booleans(), fixed=st.sampled_from([0.0, 0.05]), parallel=st.sampled_from([1, 2, 4]))
    def measure(self, measured: bool, fixed: float, parallel: int) -> None:
        """Some machines are known from the start, with or without a fixed cost per batch; some are not."""
        self.parallel = parallel
        for variant in VARIANTS if measured else ():
            for size in (1, 2, 4, 8, 16):
                self.queue.table.seed(variant, size, fixed + SECONDS_PER_IMAGE[variant] * size)

    def left(self, ticket: Ticket) -> int:
        return ticket.images - sum((ticket, index) in self.taken for index in range(ticket.images))

    def over(self) -> set[Ticket]:
        return self.cancelled | set(self.expired)

    def expected_depth(self, *, background: bool) -> int:
        over = self.over()
        return sum(
            self.left(ticket)
            for ticket in [*self.admitted, *self.queued]
            if ticket not in over and (ticket.priority is Priority.BACKGROUND) is background
        )

    @rule(
        variant=st.sampled_from(VARIANTS),
        images=st.integers(1, 24),
        priority=st.sampled_from(Priority),
        dtype=st.sampled_from(("uint8", "float32")),
        allowed=st.sampled_from([None, None, 0.001, 0.1, 1.0, 10.0]),
        alone=st.sampled_from([False, False, False, True]),
    )
    def admit(
        self, variant: str, images: int, priority: Priority, dtype: InputType, allowed: float | None, alone: bool
    ) -> None:
        background = priority is Priority.BACKGROUND
        room = BACKGROUND_CAPACITY if background else CAPACITY
        fits = self.expected_depth(background=background) + images <= room
        suspected = any(running.members[0][0].alone for running in self.running)
        idle = self.queue.depth == 0 and len(self.running) < self.parallel and not suspected
        deadline = None if allowed is None else self.clock.now + allowed
        try:
            ticket = self.queue.admit(variant, images, deadline=deadline, priority=priority, dtype=dtype, alone=alone)
            self.admitted.append(ticket)
        except (QueueFullError, DeadlineUnreachableError) as error:
            refusal = error
        else:
            assert fits
            return
        assert refusal.retry_after >= 1
        if isinstance(refusal, QueueFullError):
            assert not fits
        else:
            possible = allowed >= self.queue.table.fastest(variant) * images / 4
            assert not (idle and possible), "an idle engine refuses only what is impossible"

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def enqueue(self, data: st.DataObject) -> None:
        ticket = self.admitted.pop(data.draw(st.integers(0, len(self.admitted) - 1)))
        self.queue.enqueue(ticket, rows(ticket.images))
        if ticket not in self.cancelled:
            self.queued.append(ticket)
            self.passed_over[ticket] = 0

    @precondition(lambda self: self.admitted or self.queued)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from([*self.admitted, *self.queued]))
        self.queue.cancel(ticket)
        if ticket not in self.delivered and ticket not in self.expired:
            self.cancelled.add(ticket)

    @precondition(lambda self: self.parallel > 1)
    @rule(parallel=st.integers(2, 4))
    def devices_come_and_go(self, parallel: int) -> None:
        self.parallel = parallel

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.5]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def take(self) -> None:
        batch = self.queue.take()
        dropped = self.queue.take_dropped()
        for ticket in dropped:
            assert ticket.state is State.EXPIRED
            assert isinstance(ticket.failure, DeadlineExceededError)
            assert ticket in self.queued
            assert ticket not in self.over(), "each is told once"
            assert ticket not in self.delivered
            self.expired.append(ticket)
        over = self.over()
        alive = [ticket for ticket in self.queued if ticket not in over and self.left(ticket)]
        urgent = [ticket for ticket in alive if ticket.priority is not Priority.BACKGROUND]
        if len(self.running) >= self.parallel:
            assert batch is None, "no more run at once than may"
            assert self.queue.wake_at() is None, "nor is there anything to wake up for"
            return
        if any(running.members[0][0].alone for running in self.running):
            assert batch is None, "nothing starts beside a suspect"
            return
        if batch is None and self.running and any(ticket.alone for ticket in alive):
            assert self.queue.wake_at() is None or self.queue.wake_at() > self.clock.now
            return  # a suspect may be next: it waits until nothing else runs
        if batch is None:
            decoding = [t for t in self.admitted if t not in over and t.priority is not Priority.BACKGROUND]
            assert not urgent, "an idle engine takes what is queued at once"
            shadowed = any(running.members[0][0].priority is Priority.BACKGROUND for running in self.running)
            assert not alive or decoding or shadowed, "BACKGROUND waits only for others and for its own"
            return
        self.check_batch(batch, over)
        self.taken |= set(batch.members)
        for ticket in urgent:
            if any(member is ticket for member, _ in batch.members):
                self.passed_over[ticket] = 0
            elif self.left(ticket):
                self.passed_over[ticket] += 1
                assert self.passed_over[ticket] <= CAPACITY, "every waiting request's turn comes"
        self.running.append(batch)

    def check_batch(self, batch: Batch, over: set[Ticket]) -> None:
        assert 1 <= len(batch) <= MAX_BATCH
        assert len(set(batch.members)) == len(batch)
        for ticket, index in batch.members:
            assert (ticket.variant, ticket.dtype) == (batch.variant, batch.dtype), "one variant, one kind of input"
            assert ticket not in over
            assert ticket.deadline > self.clock.now
            assert (ticket, index) not in self.taken, "no image runs twice"
        if batch.members[0][0].priority is Priority.BACKGROUND:
            assert all(running.members[0][0].priority is not Priority.BACKGROUND for running in self.running)
            slowest = max(self.queue.table.tail(variant, 1) for variant in VARIANTS)
            together = len(batch) > 1
            assert not together or self.queue.table.tail(batch.variant, len(batch)) <= slowest
            assert not together or len({ticket for ticket, _ in batch.members}) == 1
            waiting = [t for t in self.queued if t not in over and self.left(t) and t not in dict(batch.members)]
            assert not together or all(ticket.priority is Priority.BACKGROUND for ticket in [*waiting, *self.admitted])
        if any(ticket.alone for ticket, _ in batch.members):
            assert len(batch) == 1
            assert not self.running, "nothing runs beside a suspect"

    @precondition(lambda self: self.running)
    @rule(data=st.data(), failing=st.frozensets(st.integers(0, 15), max_size=3))
    def finish(self, data: st.DataObject, failing: frozenset[int]) -> None:
        batch = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.failed |= {member for place, member in enumerate(batch.members) if place in failing}
        self.delivered += self.queue.finish(batch, outcomes(batch, failing))

    @invariant()
    def depth_is_exact_and_bounded(self) -> None:
        urgent, background = self.expected_depth(background=False), self.expected_depth(background=True)
        assert self.queue.depth == urgent + background
        assert urgent <= CAPACITY
        assert background <= BACKGROUND_CAPACITY
        snapshot = self.queue.snapshot()
        assert sum(sum(state.depth.values()) for state in snapshot.variants.values()) == self.queue.depth
        assert snapshot.running_seconds >= 0
        assert snapshot.oldest_seconds >= 0

    @invariant()
    def each_delivered_request_has_its_own_rows(self) -> None:
        assert len(self.delivered) == len(set(self.delivered)), "no request is delivered twice"
        assert not set(self.delivered) & self.over()
        for ticket in self.delivered:
            assert ticket.state is State.DONE
            for index, outcome in enumerate(ticket.outcomes):
                if (ticket, index) in self.failed:
                    assert outcome.failure is not None
                else:
                    assert tuple(outcome.logits) == (id(ticket), index)

    def teardown(self) -> None:
        """Let everything end: what was not cancelled must have been delivered, or told that it was too late."""
        while self.admitted:
            ticket = self.admitted.pop()
            self.queue.enqueue(ticket, rows(ticket.images))
            self.queued.append(ticket)
        for _ in range(2 * CAPACITY + MAX_BATCH):
            while (batch := self.queue.take()) is not None:
                self.running.append(batch)
            self.expired += self.queue.take_dropped()
            assert len(self.running) <= 4
            while self.running:
                batch = self.running.pop()
                self.delivered += self.queue.finish(batch, outcomes(batch))
        assert {t for t in self.queued if t not in self.cancelled} == set(self.delivered) | set(self.expired)
        assert self.queue.depth == 0
        snapshot = self.queue.snapshot()
        assert (snapshot.running_seconds, snapshot.oldest_seconds) == (0, 0)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def make_queue(
    seconds: dict[str, tuple[float, float]] | None = None,
    *,
    capacity: int = 200,
    max_batch: int = 16,
    parallel: int = 1,
) -> tuple[ImageQueue, Clock]:
    """A queue whose variants take `fixed + each * images` seconds per batch."""
    clock = Clock()
    queue = ImageQueue(VARIANTS, capacity=capacity, max_batch=max_batch, clock=clock, parallel=lambda: parallel)
    for variant, (fixed, each) in (seconds or {}).items():
        for size in (1, 2, 4, 8, 16):
            queue.table.seed(variant, size, fixed + each * size)
    return queue, clock


FLAT = {"baseline": (0.0, 0.04), "optimised": (0.0, 0.01)}  # batching gains nothing
STEEP = {"baseline": (0.16, 0.04), "optimised": (0.04, 0.01)}  # a batch of 16 costs as much as four of one


def put(queue: ImageQueue, variant: str, images: int, **options: object) -> Ticket:
    ticket = queue.admit(variant, images, **options)
    queue.enqueue(ticket, rows(images))
    return ticket


def run(queue: ImageQueue, clock: Clock) -> Batch | None:
    """Take a batch, let the time of the table pass, finish it."""
    batch = queue.take()
    if batch is not None:
        clock.now += queue.table.seconds(batch.variant, len(batch))
        queue.finish(batch, outcomes(batch))
    return batch


def members(batch: Batch | None) -> set[Ticket]:
    assert batch is not None
    return {ticket for ticket, _ in batch.members}


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


def test_who_expired_is_told_when_another_try_would_be_in_time() -> None:
    queue, clock = make_queue(FLAT)
    late = put(queue, "baseline", 1, deadline=1.0)
    put(queue, "baseline", 100)
    clock.now = 1.0
    queue.take()
    assert queue.take_dropped() == [late]
    assert isinstance(late.failure, DeadlineExceededError)
    assert late.failure.retry_after == 4  # 101 x 0.04 s and a tenth, of which the request allows 1 s, rounded up


def test_expired_requests_are_dropped_before_a_batch_forms() -> None:
    queue, clock = make_queue()
    late, stays = put(queue, "baseline", 3, deadline=1.0), put(queue, "baseline", 2)
    clock.now = 1.0
    assert members(queue.take()) == {stays}
    assert queue.take_dropped() == [late]
    assert late.state is State.EXPIRED


def test_retry_after_follows_the_measured_rate() -> None:
    queue, _ = make_queue({"baseline": (0.0, 0.1), "optimised": (0.0, 0.01)}, capacity=100)
    put(queue, "baseline", 80)
    put(queue, "optimised", 20)
    with pytest.raises(QueueFullError, match="100 of 100 images are waiting") as full:
        queue.admit("optimised", 1)
    assert full.value.retry_after == 9  # 80 x 0.1 s + 20 x 0.01 s, rounded up


def test_a_request_alone_in_its_batch_keeps_its_rows_in_order() -> None:
    queue, _ = make_queue()
    ticket = put(queue, "baseline", 12)
    assert queue.take().members == tuple((ticket, index) for index in range(12))


def test_what_cannot_be_answered_in_time_is_refused_with_the_wait() -> None:
    queue, _ = make_queue(FLAT)
    put(queue, "baseline", 100, deadline=4.1)  # 4 s, so it goes before the next one
    with pytest.raises(DeadlineUnreachableError, match="would take about 4") as refused:
        queue.admit("optimised", 1, deadline=2.0)
    assert refused.value.retry_after == 3
    queue.admit("optimised", 1, deadline=6.0)


def test_decoding_counts_in_the_prediction() -> None:
    queue, _ = make_queue(FLAT)
    put(queue, "optimised", 1)
    queue.admit("optimised", 10, deadline=0.2)
    queue.decoded(0.05)
    with pytest.raises(DeadlineUnreachableError):
        queue.admit("optimised", 1, deadline=0.2)


def test_a_newcomer_does_not_break_a_promise() -> None:
    queue, clock = make_queue(FLAT)
    first = put(queue, "optimised", 10, deadline=0.105)
    with pytest.raises(DeadlineUnreachableError, match="miss its own"):
        queue.admit("optimised", 1, deadline=0.014)  # it would be in time itself, at the cost of the first
    while first.state is State.QUEUED:
        run(queue, clock)
    assert first.state is State.DONE


def test_a_high_request_goes_before_normal_ones() -> None:
    queue, _ = make_queue(FLAT)
    put(queue, "optimised", 100)
    high = put(queue, "baseline", 1, priority=Priority.HIGH, deadline=0.2)
    assert members(queue.take()) == {high}


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
    assert seconds <= predicted <= 1.3 * seconds


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
