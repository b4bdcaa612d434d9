"""How many images a batch is to hold. Pure, as the queue is."""

from __future__ import annotations

from collections.abc import Callable

from tessera.app.scheduling.latency import LatencyTable
from tessera.app.scheduling.ticket import Ticket

# Largest part of the time that its first request allows which a full batch may take, when more wait than it holds.
BATCH_SHARE = 0.25
# So many requests per image of `max_batch` must be there, on average of late, for batches to become large. Each batch
# that ends halves the weight of those before. Two or three batches tell a crowd that stays from a burst; small batches
# end a burst sooner.
CROWD = 2 / 3


class BatchSize:
    """The size that suits a batch, by what was measured and how many requests have been there of late.

    Args:
        table: What batches take.
        max_batch: Most images in one batch.
        abreast: How many images of a batch of a variant run side by side, at least 1.
    """

    def __init__(self, table: LatencyTable, max_batch: int, abreast: Callable[[str], int]) -> None:
        self._table = table
        self._max_batch = max_batch
        self._abreast = abreast
        self._crowd = 0.0  # unfinished requests whenever a batch ends: the mean of late

    def batch_ended(self, requests: int) -> None:
        """Remember how many requests there were when a batch ended, BACKGROUND apart."""
        self._crowd = (self._crowd + requests) / 2

    def most(self, first: Ticket, waiting: int) -> int:
        """The largest batch to form: small for few, half a one for a crowd, a full one for more who have the time.

        Args:
            first: The next ticket.
            waiting: Images in its line.
        """
        variant, most = first.variant, self._max_batch
        allowed = first.deadline - first.admitted_at
        if waiting > most and self._table.tail(variant, most) <= BATCH_SHARE * allowed:
            return max(most, self._table.efficient(variant), key=lambda size: self._rate(variant, size))
        return self._table.shared(variant) if self._crowd >= CROWD * most else self._table.quick(variant)

    def even(self, variant: str, images: int) -> int:
        """So many of `images` that as many run side by side from first to last."""
        abreast = self._abreast(variant)
        return images if images < abreast else images - images % abreast

    def most_of_background(self, first: Ticket, bound: float) -> int:
        """How many images of a BACKGROUND request run together, in a batch of at most `bound` seconds; at least 1."""
        fits = [n for n in range(1, self._max_batch + 1) if 0 < self._table.tail(first.variant, n) <= bound]
        return max(1, min(len(first.waiting), len(fits)))

    def _rate(self, variant: str, size: int) -> float:
        """Images per second in batches of a size; of a variant that has never run, more in larger ones."""
        seconds = self._table.seconds(variant, size)
        return size / seconds if seconds > 0 else float(size)
