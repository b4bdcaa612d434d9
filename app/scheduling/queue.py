"""The bounded queue of images and the rule by which batches form. Pure: no threads, no sleeping, the clock injected."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from app.errors import QueueFullError
from app.scheduling.rate import ServiceRate
from app.scheduling.ticket import Batch, Outcome, State, Ticket


class ImageQueue:
    """Images waiting for the engine, first come first served by request, one line per variant.

    Rules:
        - A batch takes whatever is waiting, up to `max_batch`: nothing ever waits for a batch to fill.
        - Turns are numbered in order of arrival; the variant with the lowest turn goes next, so each one's time comes.
        - In its turn a request gives at most half a batch; what is left of it takes a new turn behind everyone who
          waits now. So a request of 64 images does not block a request of one, nor is it starved by a stream of them.
        - Admission counts images, including those still being decoded, so the bound also bounds memory.

    Not thread-safe: the owner holds a lock around every call.

    Args:
        variants: Names of the variants.
        capacity: Most images admitted and not yet in a batch.
        max_batch: Most images in one batch.
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, variants: Iterable[str], *, capacity: int, max_batch: int, clock: Callable[[], float]) -> None:
        self._lines: dict[str, deque[Ticket]] = {variant: deque() for variant in variants}
        self._depths = dict.fromkeys(self._lines, 0)
        self._capacity = capacity
        self._max_batch = max_batch
        self._clock = clock
        self._share = max(1, max_batch // 2)
        self._turns = 0
        self._turn: dict[Ticket, int] = {}
        self.rate = ServiceRate()

    @property
    def depth(self) -> int:
        """Images admitted and not yet in a batch."""
        return sum(self._depths.values())

    def check_room(self, images: int = 1) -> None:
        """Raise the error that admission of `images` would raise now.

        Raises:
            QueueFullError: There is no room; carries when to try again, from the measured rate.
        """
        if self.depth + images > self._capacity:
            wait = self.rate.retry_after(self._depths)
            raise QueueFullError(
                f"The queue is full: {self.depth} of {self._capacity} images are waiting and the request has {images}. "
                f"Try again in {wait} s.",
                retry_after=wait,
            )

    def admit(self, variant: str, images: int) -> Ticket:
        """Reserve room for a request of `images` (at least 1), before they are decoded.

        Raises:
            QueueFullError: There is no room.
        """
        self.check_room(images)
        self._depths[variant] += images
        return Ticket(variant, images)

    def enqueue(self, ticket: Ticket, pixels: np.ndarray) -> None:
        """Let an admitted request join its line.

        Args:
            ticket: As returned by `admit`; a cancelled one is ignored.
            pixels: uint8 [images, size, size, 3].
        """
        if ticket.state is not State.ADMITTED:
            return
        ticket.pixels = pixels
        ticket.queued_at = self._clock()
        ticket.state = State.QUEUED
        self._join_line(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """Drop what has not run yet of a request; its outcomes are no longer wanted. Harmless when already over."""
        if ticket.state not in (State.ADMITTED, State.QUEUED):
            return
        ticket.state = State.CANCELLED
        self._depths[ticket.variant] -= len(ticket.waiting)
        ticket.waiting.clear()
        self._leave_line(ticket)

    def take(self) -> Batch | None:
        """Form the next batch now, or None when nothing waits."""
        waiting = [line for line in self._lines.values() if line]
        if not waiting:
            return None
        line = min(waiting, key=lambda tickets: self._turn[tickets[0]])
        variant = line[0].variant
        members: list[tuple[Ticket, int]] = []
        while line and len(members) < self._max_batch:
            ticket = line[0]
            self._leave_line(ticket)
            for _ in range(min(self._share, len(ticket.waiting), self._max_batch - len(members))):
                members.append((ticket, ticket.waiting.popleft()))
            if ticket.waiting:
                self._join_line(ticket)
        self._depths[variant] -= len(members)
        # Rows of one request side by side: when it is alone in the batch, its pixels are used where they are.
        members.sort(key=lambda member: self._order(member))
        return Batch(variant, tuple(members))

    def finish(self, batch: Batch, outcomes: Sequence[Outcome]) -> list[Ticket]:
        """Hand out the outcomes of a batch, one per member.

        Returns:
            The requests that are complete by this and still wanted.
        """
        finished = []
        for (ticket, index), outcome in zip(batch.members, outcomes, strict=True):
            ticket.outcomes[index] = outcome
            ticket.unfinished -= 1
            if ticket.unfinished == 0 and ticket.state is State.QUEUED:
                ticket.state = State.DONE
                finished.append(ticket)
        return finished

    def _join_line(self, ticket: Ticket) -> None:
        self._turn[ticket] = self._turns
        self._turns += 1
        self._lines[ticket.variant].append(ticket)

    def _leave_line(self, ticket: Ticket) -> None:
        if self._turn.pop(ticket, None) is not None:
            self._lines[ticket.variant].remove(ticket)

    def _order(self, member: tuple[Ticket, int]) -> tuple[float, int, int]:
        ticket, index = member
        return ticket.queued_at, id(ticket), index
