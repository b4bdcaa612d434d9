"""The queue's rules, explored by Hypothesis: nothing lost, nothing twice, nobody starved, bounds and deadlines kept."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tessera.app.errors import DeadlineExceededError, DeadlineUnreachableError, QueueFullError
from tessera.app.scheduling.queue import ImageQueue
from tessera.app.scheduling.ticket import Batch, InputType, Priority, State, Ticket
from tests.queues import VARIANTS, Clock, outcomes, rows

CAPACITY = 40
BACKGROUND_CAPACITY = 5
MAX_BATCH = 16
SECONDS_PER_IMAGE = {"baseline": 0.04, "optimised": 0.01}


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
            others = [t for t in [*self.admitted, *self.queued] if t not in over and t not in dict(batch.members)]
            assert not together or all(t.priority is Priority.BACKGROUND for t in others if self.left(t))
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
TestQueueMachine.settings = settings(max_examples=80, stateful_step_count=40)
