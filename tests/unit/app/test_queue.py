"""The batching rules, explored by Hypothesis: nothing lost, nothing twice, nobody starved, the bound kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.errors import QueueFullError
from app.scheduling.queue import ImageQueue
from app.scheduling.ticket import Batch, Outcome, State, Ticket

CAPACITY = 40
MAX_BATCH = 16
VARIANTS = ("baseline", "optimised")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pixels(images: int) -> np.ndarray:
    return np.zeros((images, 1), np.uint8)


def outcomes(batch: Batch) -> list[Outcome]:
    return [Outcome(np.array([id(ticket), index]), None, 0.0, 0.1, len(batch)) for ticket, index in batch.members]


class QueueMachine(RuleBasedStateMachine):
    """Requests come, are decoded, leave early; batches are taken and finished, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = ImageQueue(VARIANTS, capacity=CAPACITY, max_batch=MAX_BATCH, clock=self.clock)
        self.admitted: list[Ticket] = []
        self.queued: list[Ticket] = []
        self.cancelled: set[Ticket] = set()
        self.delivered: list[Ticket] = []
        self.taken: dict[tuple[Ticket, int], int] = {}
        self.passed_over: dict[Ticket, int] = {}
        self.running: list[Batch] = []

    def waiting_images(self, tickets: list[Ticket]) -> int:
        return sum(ticket.images - sum((ticket, i) in self.taken for i in range(ticket.images)) for ticket in tickets)

    def expected_depth(self) -> int:
        alive = [ticket for ticket in [*self.admitted, *self.queued] if ticket not in self.cancelled]
        return self.waiting_images(alive)

    @rule(variant=st.sampled_from(VARIANTS), images=st.integers(1, 24))
    def admit(self, variant: str, images: int) -> None:
        before = self.expected_depth()
        if before + images <= CAPACITY:
            self.admitted.append(self.queue.admit(variant, images))
            return
        with pytest.raises(QueueFullError) as full:
            self.queue.admit(variant, images)
        assert full.value.retry_after >= 1

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def enqueue(self, data: st.DataObject) -> None:
        ticket = self.admitted.pop(data.draw(st.integers(0, len(self.admitted) - 1)))
        self.clock.now += 1
        self.queue.enqueue(ticket, pixels(ticket.images))
        if ticket not in self.cancelled:
            self.queued.append(ticket)
            self.passed_over[ticket] = 0

    @precondition(lambda self: self.admitted or self.queued)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from([*self.admitted, *self.queued]))
        self.queue.cancel(ticket)
        if ticket not in self.delivered:
            self.cancelled.add(ticket)

    @rule()
    def take(self) -> None:
        alive = [ticket for ticket in self.queued if ticket not in self.cancelled]
        waiting = {variant: self.waiting_images([t for t in alive if t.variant == variant]) for variant in VARIANTS}
        batch = self.queue.take()
        if batch is None:
            assert not any(waiting.values()), "an idle engine takes what is queued at once"
            return
        assert len(batch) == min(MAX_BATCH, waiting[batch.variant]), "a batch takes all there is, up to its limit"
        for ticket, index in batch.members:
            assert ticket.variant == batch.variant
            assert ticket not in self.cancelled
            assert (ticket, index) not in self.taken, "no image runs twice"
            self.taken[ticket, index] = 1
        for ticket in alive:
            if any(member is ticket for member, _ in batch.members):
                self.passed_over[ticket] = 0
            elif any((ticket, index) not in self.taken for index in range(ticket.images)):
                self.passed_over[ticket] += 1
                assert self.passed_over[ticket] <= CAPACITY, "every waiting request's turn comes"
        self.running.append(batch)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        batch = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.delivered += self.queue.finish(batch, outcomes(batch))

    @invariant()
    def depth_is_exact_and_bounded(self) -> None:
        assert self.queue.depth == self.expected_depth()
        assert self.queue.depth <= CAPACITY

    @invariant()
    def each_delivered_request_has_its_own_rows(self) -> None:
        assert len(self.delivered) == len(set(self.delivered)), "no request is delivered twice"
        for ticket in self.delivered:
            assert ticket.state is State.DONE
            rows = [tuple(outcome.logits) for outcome in ticket.outcomes]
            assert rows == [(id(ticket), index) for index in range(ticket.images)]

    def teardown(self) -> None:
        """Let everything end: what was not cancelled must have been delivered."""
        while self.admitted:
            ticket = self.admitted.pop()
            self.queue.enqueue(ticket, pixels(ticket.images))
            self.queued.append(ticket)
        while (batch := self.queue.take()) is not None:
            self.running.append(batch)
        for batch in self.running:
            self.delivered += self.queue.finish(batch, outcomes(batch))
        assert {t for t in self.queued if t not in self.cancelled} == set(self.delivered)
        assert self.queue.depth == 0


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def make_queue(**options: int) -> ImageQueue:
    return ImageQueue(VARIANTS, **{"capacity": 200, "max_batch": 16, **options}, clock=Clock())


def put(queue: ImageQueue, variant: str, images: int) -> Ticket:
    ticket = queue.admit(variant, images)
    queue.enqueue(ticket, pixels(images))
    return ticket


def test_a_large_request_does_not_block_a_small_one() -> None:
    queue = make_queue()
    put(queue, "baseline", 64)
    small = put(queue, "baseline", 1)
    assert any(ticket is small for ticket, _ in queue.take().members)


def test_a_large_request_is_not_starved_by_a_stream_of_small_ones() -> None:
    queue = make_queue()
    large = put(queue, "baseline", 64)
    batches = 0
    while large.waiting:
        while queue.depth < 150:
            put(queue, "baseline", 1)
        queue.take()
        batches += 1
        assert batches < 100


def test_variants_take_turns_under_load() -> None:
    queue = make_queue()
    turns = []
    for _ in range(20):
        while queue.depth < 180:
            put(queue, "baseline", 1)
            put(queue, "optimised", 1)
        turns.append(queue.take().variant)
    assert 8 <= turns.count("optimised") <= 12


def test_a_cancelled_request_never_reaches_a_batch() -> None:
    queue = make_queue()
    gone, stays = put(queue, "baseline", 3), put(queue, "baseline", 2)
    queue.cancel(gone)
    assert {ticket for ticket, _ in queue.take().members} == {stays}


def test_retry_after_follows_the_measured_rate() -> None:
    queue = make_queue(capacity=100)
    queue.table.seed("baseline", 10, 1.0)
    queue.table.seed("optimised", 10, 0.1)
    put(queue, "baseline", 80)
    put(queue, "optimised", 20)
    with pytest.raises(QueueFullError, match="100 of 100 images are waiting") as full:
        queue.admit("optimised", 1)
    assert full.value.retry_after == 9  # 80 x 0.1 s + 20 x 0.01 s, rounded up


def test_a_request_alone_in_its_batch_keeps_its_rows_in_order() -> None:
    queue = make_queue()
    ticket = put(queue, "baseline", 12)
    assert queue.take().members == tuple((ticket, index) for index in range(12))
