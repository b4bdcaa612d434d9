"""Shadow runs: off the path of requests, dropped when there is work, and never an error for a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from tessera.app.dispatch import shadow
from tessera.app.dispatch.experiment import LocalExperiment, open_experiment
from tessera.app.dispatch.shadow import MOST_WAITING, Shadow
from tessera.app.errors import QueueFullError
from tessera.app.observability.metrics import Metrics
from tessera.app.processes.experiment import RemoteExperiment, SharedExperiment
from tessera.app.routing.events import Answered, Compared, Event, NotCompared
from tessera.app.routing.router import Decision
from tessera.app.routing.shadow import Comparison
from tessera.app.scheduling.snapshot import Snapshot, VariantSnapshot
from tessera.app.scheduling.ticket import Outcome, Priority
from tessera.app.settings import Settings

VARIANTS = ("baseline", "optimised")


@dataclass
class Engine:
    """A dispatcher whose queue and speed a test decides; it records what the shadow asks of it."""

    depth: dict[Priority, int] = field(default_factory=dict)
    room: int = 100
    fails: bool = False
    gate: asyncio.Event | None = None
    reserved: list[tuple[str, int, Priority]] = field(default_factory=list)
    released: int = 0
    events: list[Event] = field(default_factory=list)

    @property
    def experiment(self) -> SimpleNamespace:
        return SimpleNamespace(record=self.events.append)

    def snapshot(self) -> Snapshot:
        return Snapshot({"baseline": VariantSnapshot(self.depth, 0.0, {})}, 0.0, 0.0)

    def reserve(self, variant: str, images: int, *, dtype: str, priority: Priority) -> SimpleNamespace:
        if images > self.room:
            raise QueueFullError("full")
        self.reserved.append((variant, images, priority))
        return SimpleNamespace(variant=variant, rows=np.empty((images, 4, 4, 3), dtype), done=None)

    def submit(self, reservation: SimpleNamespace) -> None:
        reservation.done = asyncio.ensure_future(self._run(len(reservation.rows)))

    async def _run(self, images: int) -> list[Outcome]:
        if self.gate is not None:
            await self.gate.wait()
        return [outcome(failed=self.fails, seconds=0.3)] * images

    def release(self, reservation: SimpleNamespace) -> None:
        self.released += 1


def outcome(*, failed: bool = False, seconds: float = 0.1) -> Outcome:
    logits = None if failed else np.array([0.0, 3.0], np.float32)
    return Outcome(logits, None, 0.0, seconds, 1)


def request(images: int = 1) -> SimpleNamespace:
    return SimpleNamespace(variant="optimised", rows=np.zeros((images, 4, 4, 3), np.uint8))


def offered(
    engine: Engine, *, images: int = 1, times: int = 1, share: float = 1.0, chance: Callable[[], float] = lambda: 0.5
) -> list[Event]:
    """What the shadow records after `times` requests of `images`."""

    async def run() -> None:
        runs = Shadow(engine, share=share, chance=chance)  # type: ignore[arg-type]
        for _ in range(times):
            runs.offer(request(images), [outcome()] * images, lambda: VARIANTS)
        while engine.gate and not engine.events:
            await asyncio.sleep(0.01)
        for _ in range(200):
            await asyncio.sleep(0)
        await runs.stop()

    asyncio.run(run())
    return engine.events


def test_an_image_is_run_by_the_other_variant_at_the_lowest_priority_and_compared() -> None:
    engine = Engine()
    (event,) = offered(engine)
    assert isinstance(event, Compared)
    assert event.comparison == (True, 0.0, pytest.approx(3.0)), "baseline's time over optimised's"
    assert engine.reserved == [("baseline", 1, Priority.BACKGROUND)]
    assert engine.released == 1


def test_images_of_one_request_go_together_and_each_is_compared() -> None:
    engine = Engine()
    events = offered(engine, images=5)
    assert [type(event) for event in events] == [Compared] * 5
    assert engine.reserved == [("baseline", 5, Priority.BACKGROUND)]
    assert engine.released == 1


def test_images_that_find_no_room_together_go_one_at_a_time() -> None:
    engine = Engine(room=2)
    assert [type(event) for event in offered(engine, images=3)] == [Compared] * 3
    assert engine.reserved == [("baseline", 1, Priority.BACKGROUND)] * 3


@pytest.mark.parametrize(("share", "draw", "runs"), [(0.25, 0.24, 1), (0.25, 0.25, 0), (0.0, 0.0, 0), (1.0, 0.999, 1)])
def test_the_share_is_of_requests(share: float, draw: float, runs: int) -> None:
    assert len(offered(Engine(), share=share, chance=lambda: draw)) == runs


def test_a_variant_that_is_not_loaded_is_not_run() -> None:
    async def run() -> Engine:
        engine = Engine()
        runs = Shadow(engine, share=1.0)  # type: ignore[arg-type]
        runs.offer(request(), [outcome()], lambda: ["optimised"])
        await runs.stop()
        return engine

    assert asyncio.run(run()).events == []


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.HIGH])
def test_it_is_dropped_while_a_request_waits(priority: Priority) -> None:
    engine = Engine(depth={priority: 1})
    assert offered(engine, images=3) == [NotCompared("dropped", 3)]
    assert engine.reserved == []


def test_what_waits_at_background_priority_is_nobody_to_make_way_for() -> None:
    assert len(offered(Engine(depth={Priority.BACKGROUND: 1}))) == 1


def test_it_is_dropped_when_there_is_no_room() -> None:
    assert offered(Engine(room=0)) == [NotCompared("dropped")]


def test_memory_is_bounded() -> None:
    async def blocked() -> Engine:
        engine = Engine(gate=asyncio.Event())
        runs = Shadow(engine, share=1.0, chance=lambda: 0.0)  # type: ignore[arg-type]
        for _ in range(10):
            runs.offer(request(10), [outcome()] * 10, lambda: VARIANTS)
        await runs.stop()
        return engine

    engine = asyncio.run(blocked())
    dropped = sum(event.images for event in engine.events if isinstance(event, NotCompared))
    assert dropped == 100 - MOST_WAITING


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "PATIENCE", 0.01)
    engine = Engine(gate=asyncio.Event())
    assert offered(engine) == [NotCompared("dropped")]
    assert engine.released == 1


def test_a_failure_of_either_run_is_counted_as_such() -> None:
    assert offered(Engine(fails=True)) == [NotCompared("failed")]


def test_processes_share_one_experiment_and_hear_of_its_guard() -> None:
    settings = Settings(guard_agreement=0.9, guard_window=100)
    told: list[bool] = []

    async def run() -> None:
        host = SharedExperiment(open_experiment(settings, VARIANTS, Metrics()), told.append)

        async def ask(question: bytes) -> bytes:
            return host.answer(question)

        first, second = RemoteExperiment(host.record, ask), RemoteExperiment(host.record, ask)
        first.record(Answered(Decision("optimised", "default"), 0.01))
        for number in range(10):
            for process in (first, second):
                process.record(Compared(Comparison(False, 1.0, 2.0), b"%d %d" % (number, id(process))))
        assert told == [], "sent together, a moment later"
        await asyncio.sleep(3 * RemoteExperiment.FLUSH)
        assert told == [True], "neither has seen enough alone"
        state = await second.snapshot()
        assert state["guard"]["state"] == "tripped"  # type: ignore[index]
        assert state["variants"]["optimised"]["requests"]["total"] == 1  # type: ignore[index]
        assert await second.reset_guard("By hand.") is True
        assert await first.reset_guard("By hand.") is False
        assert told == [True, False]

    asyncio.run(run())


def test_the_experiment_of_this_process_has_the_same_face() -> None:
    async def run() -> None:
        local = LocalExperiment(open_experiment(Settings(), VARIANTS, Metrics()))
        local.record(Answered(Decision("optimised", "default"), 0.01))
        assert not local.tripped
        assert not await local.reset_guard("By hand.")
        assert (await local.snapshot())["guard"]["state"] == "off"  # type: ignore[index]

    asyncio.run(run())
