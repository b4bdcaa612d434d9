"""The queue of images and the rule by which batches form. Pure: no threads, no sleeping, the clock injected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from tessera.app.errors import DeadlineExceededError
from tessera.app.scheduling.admission import Admission
from tessera.app.scheduling.batch_size import BatchSize
from tessera.app.scheduling.latency import LatencyTable
from tessera.app.scheduling.line import Line
from tessera.app.scheduling.snapshot import Snapshot, VariantSnapshot, seconds_to_wait
from tessera.app.scheduling.ticket import Batch, InputType, Outcome, Priority, Rows, State, Ticket

# Largest part of the engine's time that BACKGROUND gets while others wait: it is not starved, nor does it delay.
BACKGROUND_SHARE = 0.01


class ImageQueue:
    """Images waiting for the engine, in one line per variant and kind of input.

    Rules:
        - A free engine takes what waits at once, up to the batch size that suits: nothing waits for a batch to fill. It
          is free while fewer batches run than it can run at once. Images beyond a multiple of those that run side by
          side are left for the next batch: they would make the others wait, and be no faster for it.
        - The request that is due first goes first, and its variant with it: see `Admission.due`.
        - In its turn a request gives at most half of `max_batch`. The rest of it takes a new turn behind all requests
          that wait now, unless its deadline presses. So a request of 64 images does not block a request of one, nor is
          it starved by a stream of them.
        - A batch is no larger than its most urgent member can wait for. A request that can no longer be answered in
          time is dropped before a batch forms.
        - A request that is suspected of killing the engine process runs alone: an image at a time, nothing beside it.
        - BACKGROUND runs when nothing else waits or is being decoded. Its batch is of images of one request, and takes
          no longer than one image of the slowest variant: a request that comes meanwhile waits no longer than that. It
          runs one batch after the other, however many could run at once.

    Not thread-safe: the owner holds a lock around every call.

    Args:
        variants: Names of the variants.
        capacity: Most images admitted and not yet in a batch.
        max_batch: Most images in one batch.
        clock: Seconds on a monotonic clock.
        decoders: How many images are decoded at a time on the engine's cores.
        parallel: How many batches may run at once, at this moment; at least 1.
        abreast: How many images of a batch of a variant run side by side, at least 1.
    """

    def __init__(
        self,
        variants: Iterable[str],
        *,
        capacity: int,
        max_batch: int,
        clock: Callable[[], float],
        decoders: int = 1,
        parallel: Callable[[], int] = lambda: 1,
        abreast: Callable[[str], int] = lambda variant: 1,
    ) -> None:
        names = list(variants)
        self.table = LatencyTable(names, max_batch)
        self._parallel = parallel
        self._size = BatchSize(self.table, max_batch, abreast)
        self._admission = Admission(self.table, names, capacity=capacity, decoders=decoders, parallel=parallel)
        self._share = max(1, max_batch // 2)
        self._clock = clock
        self._lines: dict[tuple[str, InputType], Line] = {}
        self._numbers = count()
        self._background = Line(self._numbers)
        self._background_from = 0.0  # when BACKGROUND may run although others wait
        self._running: dict[Batch, float] = {}
        self._unfinished: dict[Ticket, None] = {}  # in order of admission
        self._dropped: list[Ticket] = []

    @property
    def depth(self) -> int:
        """Images admitted and not yet in a batch."""
        return self._admission.depth

    def check_room(
        self, variant: str | None = None, *, deadline: float | None = None, priority: Priority = Priority.NORMAL
    ) -> None:
        """Raise the error that admission of one image would raise now; without a variant, any variant will do.

        Raises:
            QueueFullError: As `admit`.
            DeadlineUnreachableError: As `admit`.
        """
        names = [variant] if variant is not None else list(self._admission.depths)
        for left, name in zip(range(len(names) - 1, -1, -1), names, strict=True):
            try:
                self._check(self._ticket(name, 1, deadline, priority, "uint8"))
            except Exception:
                if left == 0:
                    raise
            else:
                return

    def admit(
        self,
        variant: str,
        images: int,
        *,
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        dtype: InputType = "uint8",
        alone: bool = False,
        explain: int = 0,
    ) -> Ticket:
        """Reserve room for a request of `images` (at least 1), before they are decoded.

        Raises:
            QueueFullError: There is no room.
            DeadlineUnreachableError: By the measured speed it could not be answered before `deadline`.
        """
        ticket = self._ticket(variant, images, deadline, priority, dtype)
        ticket.alone = alone
        ticket.explain = explain
        self._check(ticket)
        self._admission.add(ticket)
        self._unfinished[ticket] = None
        return ticket

    def enqueue(self, ticket: Ticket, rows: Rows) -> None:
        """Let an admitted request join its line.

        Args:
            ticket: As returned by `admit`; a cancelled one is ignored.
            rows: One row per image.
        """
        if ticket.state is not State.ADMITTED:
            return
        ticket.rows = rows
        ticket.queued_at = self._clock()
        ticket.state = State.QUEUED
        ticket.turn = self._share
        self._admission.stop_decoding(ticket)
        line = self._line(ticket)
        if line is self._background and not line:
            pause = self.table.seconds(ticket.variant, 1) / BACKGROUND_SHARE
            self._background_from = max(self._background_from, ticket.queued_at + pause)
        line.join(ticket, ticket.due)

    def cancel(self, ticket: Ticket) -> bool:
        """Drop what has not run yet of a request, whose outcomes are no longer wanted; False when it is over."""
        wanted = ticket.state in (State.ADMITTED, State.QUEUED)
        self._drop(ticket, State.CANCELLED)
        return wanted

    def take(self) -> Batch | None:
        """Form the next batch now, or None when none is to start; see also `take_dropped` and `wake_at`."""
        now = self._clock()
        for ticket in [ticket for ticket in self._unfinished if ticket.deadline <= now]:
            self._expire(ticket)
        if not self._is_free():
            return None
        while (line := self._next_line(now)) is not None:
            if self._must_wait(line):
                return None
            members = self._fill(line, now)
            if members:
                return self._start(members, now)
        return None

    def take_dropped(self) -> list[Ticket]:
        """The requests that `take` gave up since the last call, to be told so."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def wake_at(self) -> float | None:
        """When to call `take` again although nothing happens, as a clock reading; None: never."""
        if not (self._background and self._is_free() and self._may_run_background()):
            return None
        return None if self._must_wait(self._background) else self._background_from

    def finish(self, batch: Batch, outcomes: Sequence[Outcome]) -> list[Ticket]:
        """Hand out the outcomes of a batch, one per member.

        Returns:
            The requests that are complete by this and still wanted.
        """
        now = self._clock()
        self._size.batch_ended(sum(ticket.priority is not Priority.BACKGROUND for ticket in self._unfinished))
        started = self._running.pop(batch)
        if all(outcome.failure is None and outcome.batch_size == len(batch) for outcome in outcomes):
            self.table.observe(batch.variant, len(batch), now - started)
        if _is_background(batch):
            self._background_from = now + (now - started) * (1 / BACKGROUND_SHARE - 1)
        finished = []
        for (ticket, index), outcome in zip(batch.members, outcomes, strict=True):
            ticket.outcomes[index] = outcome
            ticket.unfinished -= 1
            if ticket.unfinished == 0 and ticket.state is State.QUEUED:
                ticket.state = State.DONE
                self._unfinished.pop(ticket)
                finished.append(ticket)
        return finished

    def decoded(self, seconds: float) -> None:
        """Count an image that took `seconds` of a core to decode."""
        self._admission.decoded(seconds)

    def waits_for(self, variant: str) -> bool:
        """Whether a request of a variant has no answer yet."""
        return any(ticket.variant == variant for ticket in self._unfinished)

    def snapshot(self) -> Snapshot:
        """The state at this moment."""
        now = self._clock()
        variants = {
            variant: VariantSnapshot(
                depth={priority: counts[priority] for priority in Priority},
                predicted_seconds=self._predict(variant, 1),
                batches=self.table.rows(variant),
            )
            for variant, counts in self._admission.depths.items()
        }
        oldest = next(iter(self._unfinished), None)
        return Snapshot(
            variants=variants,
            running_seconds=max((now - started for started in self._running.values()), default=0.0),
            oldest_seconds=now - oldest.admitted_at if oldest is not None else 0.0,
            parallel=self._parallel(),
        )

    def _predict(self, variant: str, images: int) -> float:
        """Seconds from now to the answer of one more request."""
        ticket = self._ticket(variant, images, None, Priority.NORMAL, "uint8")
        now = ticket.admitted_at
        return max(self._admission.predict(ticket, now, self._running_seconds_left(now)) - now, 0.0)

    def _ticket(
        self, variant: str, images: int, deadline: float | None, priority: Priority, dtype: InputType
    ) -> Ticket:
        limit = math.inf if deadline is None else deadline
        ticket = Ticket(variant, images, priority, dtype, deadline=limit, admitted_at=self._clock())
        ticket.due = self._admission.due(ticket)
        return ticket

    def _check(self, ticket: Ticket) -> None:
        now = ticket.admitted_at
        self._admission.check(ticket, now, self._running_seconds_left(now), self._is_free())

    def _is_free(self) -> bool:
        return len(self._running) < self._parallel() and not any(batch.members[0][0].alone for batch in self._running)

    def _running_seconds_left(self, now: float) -> float:
        """What is left of running batches, summed. One that is overdue is taken to need as long again as it is late."""
        return sum(
            abs(started + self.table.seconds(batch.variant, len(batch)) - now)
            for batch, started in self._running.items()
        )

    def _line(self, ticket: Ticket) -> Line:
        if ticket.priority is Priority.BACKGROUND:
            return self._background
        return self._lines.setdefault((ticket.variant, ticket.dtype), Line(self._numbers))

    def _next_line(self, now: float) -> Line | None:
        waiting = [line for line in self._lines.values() if line]
        for line in waiting:
            self._end_turns(line, now)
        idle = not (waiting or self._admission.decoding)
        if self._background and (now >= self._background_from or idle) and self._may_run_background():
            return self._background
        return min(waiting, key=lambda line: line.starts, default=None)

    def _must_wait(self, line: Line) -> bool:
        """Whether the next ticket has to run alone, so that a death has one cause, and something runs."""
        return bool(self._running) and line.first.alone

    def _may_run_background(self) -> bool:
        """Not two at once: requests that come now shall find most of the engine free."""
        return not any(_is_background(batch) for batch in self._running)

    def _fill(self, line: Line, now: float) -> list[tuple[Ticket, int]]:
        """Take the images of the next batch out of a line; none when everyone in it had to be dropped."""
        members: list[tuple[Ticket, int]] = []
        tightest = math.inf
        variant = line.first.variant
        waiting = sum(len(ticket.waiting) for ticket in line)
        background = line is self._background
        most = self._most_of_background(line.first) if background else self._size.most(line.first, waiting)
        least = self.table.frugal(variant) if waiting > most and not background else 1
        if not background:
            most = self._size.even(variant, min(most, waiting))
        while line and len(members) < most:
            self._end_turns(line, now)
            ticket = line.first
            if self._too_late(ticket, now, least):
                self._expire(ticket)
                continue
            if ticket.alone:
                if members or self._running:
                    break
                most = 1
            tightest = min(tightest, ticket.deadline)
            if len(members) >= least and now + self.table.tail(variant, len(members) + 1) > tightest:
                break
            members.append((ticket, ticket.waiting.popleft()))
            ticket.turn -= 1
            self._admission.remove(ticket, 1)
            if not ticket.waiting:
                line.leave(ticket)
        return members

    def _most_of_background(self, first: Ticket) -> int:
        """How many images of a BACKGROUND request run together."""
        if self._admission.decoding or any(self._lines.values()):
            return 1
        bound = max(self.table.tail(variant, 1) for variant in self._admission.depths)
        return self._size.most_of_background(first, bound)

    def _too_late(self, ticket: Ticket, now: float, least: int) -> bool:
        """Whether a ticket cannot be answered in time, in batches of `least` or more.

        When no other request waits, it is tried all the same. While many wait, a batch made small for one late request
        would make those after it late too. It is better to lose the one.
        """
        if self.depth == len(ticket.waiting):
            return False
        variant = ticket.variant
        needed = max(self.table.work(variant, len(ticket.waiting)), self.table.seconds(variant, least))
        return now + needed > ticket.deadline

    def _end_turns(self, line: Line, now: float) -> None:
        """Put a next ticket that has given its share behind all others in the line, if that leaves it time enough.

        Not when it gives the last image of its share: tickets that come during that batch shall go before the rest too.
        """
        while (ticket := line.first).turn == 0:
            line.leave(ticket)
            ticket.turn = self._share
            if line and now + self._admission.backlog_seconds() + self.table.work(ticket.variant, self._share) <= (
                ticket.deadline
            ):
                self._admission.postpone(ticket, max(ticket.due, line.ends))
            line.join(ticket, ticket.due)

    def _start(self, members: list[tuple[Ticket, int]], now: float) -> Batch:
        # Rows of one request side by side: when it is alone in the batch, its rows are used where they are.
        members.sort(key=lambda member: (member[0].queued_at, id(member[0]), member[1]))
        first = members[0][0]
        batch = Batch(first.variant, first.dtype, tuple(members))
        self._running[batch] = now
        return batch

    def _expire(self, ticket: Ticket) -> None:
        if ticket.state is State.QUEUED:
            self._drop(ticket, State.EXPIRED)
            allowed = ticket.deadline - ticket.admitted_at
            ticket.failure = DeadlineExceededError(
                f"The answer was not ready within the {allowed * 1000:.0f} ms that were left.",
                retry_after=seconds_to_wait(self._predict(ticket.variant, ticket.images) - allowed),
            )
            self._dropped.append(ticket)

    def _drop(self, ticket: Ticket, state: State) -> None:
        if ticket.state not in (State.ADMITTED, State.QUEUED):
            return
        if ticket.state is State.ADMITTED:
            self._admission.stop_decoding(ticket)
        else:
            self._line(ticket).leave(ticket)
        ticket.state = state
        images = len(ticket.waiting)
        ticket.waiting.clear()
        self._admission.remove(ticket, images)
        self._unfinished.pop(ticket, None)


def _is_background(batch: Batch) -> bool:
    return batch.members[0][0].priority is Priority.BACKGROUND
