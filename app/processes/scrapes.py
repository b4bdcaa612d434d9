"""The metrics of all processes, collected and added up by the supervisor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from tessera.app.observability.merge import Ledger, registry_to_json
from tessera.app.observability.metrics import Metrics
from tessera.app.processes.children import Child
from tessera.app.processes.messages import Kind, Message, pack_file, unpack_file

_OWN = "tessera-supervisor"
_PATIENCE = 5  # ticks that a scrape waits for a process that does not report; then its last report counts
# Ticks between collections without a scrape. What a process counts after its last report is lost when it dies.
_PERIOD = 10


@dataclass(eq=False)
class _Collection:
    """Reports that have been asked for, and the scrape that waits for them, if any."""

    missing: set[Child]
    scrape: tuple[Child, Message] | None
    ticks: int = 0


class Scrapes:
    """Asks all processes for their metrics and answers scrapes with the sums.

    Args:
        children: Lists those alive.
    """

    def __init__(self, children: Callable[[], list[Child]]) -> None:
        self._children = children
        self.metrics = Metrics()  # the supervisor's own
        self._ledger = Ledger()
        self._collections: dict[int, _Collection] = {}
        self._numbers = count(1)
        self._ticks = 0

    def restarted(self, role: str) -> None:
        """Count a process that ended without being asked to."""
        self.metrics.restarted(role)

    def tick(self) -> None:
        """Give up waiting for who does not report, and collect now and then; called every 0.1 s."""
        self._ticks += 1
        if self._ticks % _PERIOD == 0:
            self._collect(None)
        for number, collection in list(self._collections.items()):
            collection.ticks += 1
            if collection.ticks >= _PATIENCE:
                self._complete(number)

    def answer(self, frontend: Child, message: Message) -> None:
        """Answer a frontend's SCRAPE when everybody has reported."""
        self._collect((frontend, message))

    def collected(self, child: Child, message: Message) -> None:
        """Take a report."""
        self._ledger.update(child.name, unpack_file(message.files[0]))
        collection = self._collections.get(message.identity)
        if collection is not None:
            self._reported(message.identity, collection, child)

    def ended(self, child: Child) -> None:
        """Keep the counters of a process that has ended."""
        self._ledger.retire(child.name)
        for number, collection in list(self._collections.items()):
            self._reported(number, collection, child)

    def _collect(self, scrape: tuple[Child, Message] | None) -> None:
        number = next(self._numbers)
        children = [child for child in self._children() if child.ready]
        self._collections[number] = _Collection(set(children), scrape)
        for child in children:
            child.send(Message(Kind.COLLECT, identity=number))
        if not children:
            self._complete(number)

    def _reported(self, number: int, collection: _Collection, child: Child) -> None:
        collection.missing.discard(child)
        if not collection.missing:
            self._complete(number)

    def _complete(self, number: int) -> None:
        collection = self._collections.pop(number)
        if collection.scrape is None:
            return
        frontend, asked = collection.scrape
        self._ledger.update(_OWN, registry_to_json(self.metrics.registry))
        body, content_type = self._ledger.render(asked.body.decode(errors="replace"))
        exposition = pack_file(content_type.encode() + b"\n" + body)
        frontend.send(Message(Kind.METRICS, identity=asked.identity, files=(exposition,)))
