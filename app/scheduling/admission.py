"""When a request would be answered, and whether it is admitted because of that. Pure: the time is an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count

from tessera.app.errors import DeadlineUnreachableError, QueueFullError
from tessera.app.scheduling.latency import LatencyTable
from tessera.app.scheduling.line import Line
from tessera.app.scheduling.snapshot import seconds_to_wait
from tessera.app.scheduling.ticket import Priority, State, Ticket
from tessera.wording import counted

# A NORMAL request this old goes before new HIGH ones and before new ones with a nearer deadline. So no request waits
# for ever, and a stream of others adds no more than this to its wait.
PATIENCE = 5.0
# BACKGROUND has room of its own, this share of the queue, so that it never takes the place of a request that matters.
BACKGROUND_ROOM = 1 / 8

# What a predicted wait is multiplied by before it becomes a promise. Batches are not always full, and times not the
# mean. Refusing what comes beyond capacity takes some of the cores. That needs a share of every wait. A machine that
# others share may also slow down before the wait is over. That is more likely the longer the wait is, but the machine
# seldom falls to less than half of its speed for so long. `docs/scheduling.md` has what the caution buys and costs.
_CAUTION = 1.3
_CAUTION_PER_SECOND = 0.7
_MOST_CAUTION = 2.0
# How much faster than ever seen a machine may turn out, if it was busy whenever it was measured. What needs more is
# refused even by an idle engine; less is tried, because a refusal measures nothing and would stand for ever.
_MOST_SPEED_UP = 4
_DECODE_WEIGHT = 1 / 32  # of the newest image in the running mean: sizes differ much from image to image


class Admission:
    """The images that are promised an answer, and the promise that one more request would get.

    A request is admitted when, by the measured table, it would be answered before its deadline. Besides, no request
    that was admitted before it, of the same or higher priority, may miss its own. The prediction counts the rest of
    running batches and every image that goes first. It counts the decoding still to be done, because decoders share the
    engine's cores. Where several batches run at once, what goes first is taken to be shared out evenly among them. A
    request's last batch still takes its whole time.

    What reaches an idle engine is not refused by prediction. It brings the measurement that corrects a table which a
    bad moment has spoilt.

    Args:
        table: Measured batch times.
        variants: Names of the variants.
        capacity: Most images admitted and not yet in a batch.
        decoders: How many images are decoded at a time.
        parallel: How many batches run at once, at this moment.
    """

    def __init__(
        self,
        table: LatencyTable,
        variants: list[str],
        *,
        capacity: int,
        decoders: int,
        parallel: Callable[[], int] = lambda: 1,
    ) -> None:
        self._table = table
        self._capacity = capacity
        self._decoders = decoders
        self._parallel = parallel
        self._order = Line(count())  # NORMAL and HIGH requests with images that wait or are being decoded
        self.depths: dict[str, Counter[Priority]] = {variant: Counter() for variant in variants}
        self._urgent = dict.fromkeys(variants, 0)  # the same without BACKGROUND: asked for often
        self._background = 0
        self._decoding = 0
        self._decode_seconds = 0.0

    @property
    def depth(self) -> int:
        """Images admitted and not yet in a batch."""
        return sum(self._urgent.values()) + self._background

    @property
    def decoding(self) -> bool:
        """Whether images of NORMAL or HIGH priority are being decoded, so that they will soon want the engine."""
        return self._decoding > 0

    @property
    def idle(self) -> bool:
        """Whether no image of NORMAL or HIGH priority waits or is being decoded."""
        return not self._order

    def decoded(self, seconds: float) -> None:
        """Count an image that took `seconds` of a core to decode."""
        mean = self._decode_seconds
        self._decode_seconds = seconds if mean == 0 else mean + _DECODE_WEIGHT * (seconds - mean)

    def due(self, ticket: Ticket) -> float:
        """When a ticket's last chance to start comes, or its patience ends: the order in which requests run."""
        if ticket.priority is not Priority.NORMAL:
            return ticket.admitted_at
        latest = ticket.deadline - self._table.work(ticket.variant, len(ticket.waiting))
        return min(latest, ticket.admitted_at + PATIENCE)

    def check(self, ticket: Ticket, now: float, running: float, free: bool) -> None:
        """Raise why a ticket is not admitted now, if it is not.

        Args:
            ticket: With its variant, images, priority, deadline and due time; not yet counted.
            now: Clock reading.
            running: Seconds that running batches should still take, summed.
            free: Whether another batch could start now.

        Raises:
            QueueFullError: There is no room for its images.
            DeadlineUnreachableError: It could not be answered before its deadline, or only at the cost of another's.
        """
        background = ticket.priority is Priority.BACKGROUND
        self._check_room(ticket.images, background)
        quickest = self._table.fastest(ticket.variant) * ticket.images
        if ticket.deadline - now < quickest / _MOST_SPEED_UP:
            raise DeadlineUnreachableError(
                f"The request allows {_milliseconds(ticket.deadline - now)} for {counted(ticket.images, 'image')}, "
                f"which takes {_milliseconds(quickest)} even when the service is idle. Allow more time.",
                retry_after=1,
            )
        if background or (self.idle and free):
            return
        answered = self.predict(ticket, now, running)
        if answered > ticket.deadline:
            late = seconds_to_wait(answered - ticket.deadline)
            raise DeadlineUnreachableError(
                f"The answer may take {_milliseconds(answered - now)} and the request allows "
                f"{_milliseconds(ticket.deadline - now)}. Try again in {late} s, or allow more time.",
                retry_after=late,
            )
        self._check_others(ticket, now, running)

    def predict(self, ticket: Ticket, now: float, running: float) -> float:
        """Clock reading at which a ticket that is not counted yet would be answered; `running` as for `check`."""
        batch = min(ticket.images, self._table.efficient(ticket.variant))
        margin = self._table.tail(ticket.variant, batch) - self._table.seconds(ticket.variant, batch)
        behind = sum(self._cost(other) for other in self._behind(ticket))
        wait = running / self._parallel() + self._backlog(ticket) - behind
        return now + _with_caution(wait) + margin

    def add(self, ticket: Ticket) -> None:
        """Count an admitted ticket, whose images are being decoded."""
        self._count(ticket, ticket.images)
        if ticket.priority is not Priority.BACKGROUND:
            self._order.join(ticket, ticket.due)
            self._decoding += ticket.images

    def stop_decoding(self, ticket: Ticket) -> None:
        """Note that a ticket's images are decoded, or will not be."""
        if ticket.priority is not Priority.BACKGROUND:
            self._decoding -= ticket.images

    def postpone(self, ticket: Ticket, due: float) -> None:
        """Change when a counted ticket is due."""
        ticket.due = due
        if ticket.priority is not Priority.BACKGROUND:
            self._order.leave(ticket)
            self._order.join(ticket, due)

    def remove(self, ticket: Ticket, images: int) -> None:
        """Uncount `images` of a ticket, which went into a batch or were dropped; call it after taking them out."""
        self._count(ticket, -images)
        if not ticket.waiting:
            self._order.leave(ticket)

    def backlog_seconds(self) -> float:
        """Time to promise for everything of NORMAL and HIGH priority that is admitted, without running batches."""
        return _with_caution(self._backlog(None))

    def _count(self, ticket: Ticket, images: int) -> None:
        self.depths[ticket.variant][ticket.priority] += images
        if ticket.priority is Priority.BACKGROUND:
            self._background += images
        else:
            self._urgent[ticket.variant] += images

    def _check_room(self, images: int, background: bool) -> None:
        depth = self._background if background else sum(self._urgent.values())
        room = max(1, int(self._capacity * BACKGROUND_ROOM)) if background else self._capacity
        if depth + images > room:
            wait = seconds_to_wait(self._backlog(None))
            raise QueueFullError(
                f"The queue is full: {depth} of {room} images are waiting and the request has {images}. "
                f"Try again in {wait} s.",
                retry_after=wait,
            )

    def _check_others(self, ticket: Ticket, now: float, running: float) -> None:
        """Walk those behind the newcomer, last one first; each keeps its promise, or had none left to keep."""
        behind = self._behind(ticket)
        if not behind:
            return
        before = self._backlog(None)
        delay = self._backlog(ticket) - before
        answered = now + running / self._parallel() + before
        for other in behind:
            protected = other.priority is ticket.priority or other.priority is Priority.HIGH
            if protected and answered <= other.deadline < answered + delay:
                late = seconds_to_wait(answered + delay - other.deadline)
                raise DeadlineUnreachableError(
                    f"The answer in time would make a request that came before miss its own. Try again in {late} s.",
                    retry_after=late,
                )
            answered -= self._cost(other)

    def _behind(self, ticket: Ticket) -> list[Ticket]:
        """Counted tickets that would run after `ticket`, last one first."""
        behind = []
        for other in reversed(self._order):
            if other.due <= ticket.due:
                break
            behind.append(other)
        return behind

    def _backlog(self, ticket: Ticket | None) -> float:
        """Engine and decoding time of everything counted that is not BACKGROUND, and of `ticket`."""
        seconds = last = 0.0
        for variant, images in self._urgent.items():
            if ticket is not None and ticket.variant == variant:
                images += ticket.images
            seconds += self._table.work(variant, images)
            if ticket is None or ticket.variant == variant:
                last = max(last, self._table.seconds(variant, min(images, self._table.efficient(variant))))
        parallel = self._parallel()
        if parallel > 1:
            seconds = last + (seconds - last) / parallel
        decoding = self._decoding + (ticket.images if ticket is not None else 0)
        return seconds + decoding * self._decode_seconds / self._decoders

    def _cost(self, ticket: Ticket) -> float:
        images = len(ticket.waiting)
        size = self._table.efficient(ticket.variant)
        seconds = images * self._table.seconds(ticket.variant, size) / size / self._parallel()
        if ticket.state is State.ADMITTED:
            seconds += images * self._decode_seconds / self._decoders
        return seconds


def _with_caution(wait: float) -> float:
    """Seconds to promise for a wait of so many."""
    return min(_CAUTION + _CAUTION_PER_SECOND * wait, _MOST_CAUTION) * wait


def _milliseconds(seconds: float) -> str:
    return f"{max(seconds, 0) * 1000:.0f} ms"
