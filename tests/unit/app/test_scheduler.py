"""The engine threads: own rows for every caller, and failures that hit only the guilty."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tessera.app.errors import DeadlineExceededError, InferenceError
from tessera.app.scheduling.scheduler import Scheduler
from tessera.app.scheduling.ticket import HeatMaps, Priority, Ticket
from tests.waiting import NEVER, until

POISON = 255


class Arithmetic:
    """A tiny model: its scores tell which pixels they came from, and poisoned pixels break the whole batch."""

    def __init__(self, offset: int, parallel_runs: int = 1) -> None:
        self.offset = offset
        self.parallel_runs = parallel_runs
        self.parallel_images = 1
        self.inside = self.most_inside = 0
        self.lock = threading.Lock()
        self.sizes: list[int] = []
        self.explained: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, x: np.ndarray) -> np.ndarray:
        with self.lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            self.gate.wait(NEVER)
            return self.compute(x)
        finally:
            with self.lock:
                self.inside -= 1

    def compute(self, x: np.ndarray) -> np.ndarray:
        self.sizes.append(len(x))
        keys = x[:, 0, 0, :].astype(np.int64) @ np.array([65536, 256, 1])
        if (x[:, 1, 1, 0] == POISON).any():
            raise RuntimeError("poisoned")
        return np.stack([keys + self.offset, keys * 0 + len(x)], axis=1).astype(np.float32)

    def explain(self, x: np.ndarray, top: list[int]) -> tuple[np.ndarray, list[HeatMaps | None]]:
        self.explained.append(list(top))
        logits = self.run(x)
        maps = [HeatMaps(np.arange(k), row[:k], row[:k, None, None]) for row, k in zip(logits, top, strict=True)]
        return logits, [each if len(each.classes) else None for each in maps]


class Counts:
    def __init__(self) -> None:
        self.images = 0
        self.seconds = self.share = 0.0
        self.lock = threading.Lock()

    def batch_finished(self, variant: str, images: int, seconds: float, share: float) -> None:
        assert share >= 0
        with self.lock:
            self.images += images
            self.seconds += seconds
            self.share += share


class Bench:
    """A scheduler and a blocking way to use it."""

    def __init__(self, **runners: Arithmetic) -> None:
        self.done: dict[Ticket, threading.Event] = {}
        self.counts = Counts()
        self.deliveries = 0
        self.scheduler = Scheduler(
            runners, size=224, max_batch=16, capacity=500, deliver=self._deliver, observer=self.counts
        )
        self.scheduler.start()

    def _deliver(self, tickets: list[Ticket]) -> None:
        self.deliveries += 1
        for ticket in tickets:
            self.done[ticket].set()

    def put(
        self,
        variant: str,
        keys: list[int],
        poison: frozenset[int] = frozenset(),
        *,
        listed: bool = False,
        explain: int = 0,
    ) -> Ticket:
        images = np.zeros((len(keys), 224, 224, 3), np.uint8)
        for row, key in enumerate(keys):
            images[row, 0, 0] = (key >> 16 & 255, key >> 8 & 255, key & 255)
            images[row, 1, 1, 0] = POISON if row in poison else 0
        ticket = self.scheduler.admit(variant, len(keys), explain=explain)
        self.done[ticket] = threading.Event()
        self.scheduler.submit(ticket, list(images) if listed else images)
        return ticket

    def wait(self, ticket: Ticket) -> Ticket:
        assert self.done[ticket].wait(NEVER)
        return ticket


@pytest.fixture
def bench():
    benches: list[Bench] = []

    def make(**runners: Arithmetic) -> Bench:
        benches.append(Bench(**runners))
        return benches[-1]

    yield make
    for made in benches:
        made.scheduler.stop()


@pytest.mark.parametrize("parallel", [1, 4])
def test_every_caller_gets_exactly_its_own_rows(bench, parallel: int) -> None:
    models = Arithmetic(0, parallel), Arithmetic(1_000_000, parallel)
    used = bench(baseline=models[0], optimised=models[1])

    def call(number: int) -> None:
        variant = ("baseline", "optimised")[number % 2]
        keys = [number * 100 + i for i in range(1 + number % 23)]
        ticket = used.wait(used.put(variant, keys, listed=number % 3 == 0))
        scores = [int(outcome.logits[0]) for outcome in ticket.outcomes]
        assert scores == [key + (1_000_000 if variant == "optimised" else 0) for key in keys]
        assert all(outcome.batch_size == int(outcome.logits[1]) <= 16 for outcome in ticket.outcomes)

    with ThreadPoolExecutor(12) as callers:
        list(callers.map(call, range(120)))
    assert used.counts.images == sum(1 + number % 23 for number in range(120))
    assert used.scheduler.depth == 0
    assert all(model.most_inside <= parallel for model in models)


def test_requests_gather_while_the_engine_is_busy(bench) -> None:
    model = Arithmetic(0)
    used = bench(baseline=model)
    model.gate.clear()
    tickets = [used.put("baseline", [0])]
    until(lambda: used.scheduler.depth == 0)
    tickets += [used.put("baseline", [number]) for number in range(1, 31)]
    assert used.scheduler.depth == 30
    model.gate.set()
    for ticket in tickets:
        used.wait(ticket)
    assert model.sizes[:2] == [1, 16], "what gathered is taken together while the engine's batches are not yet known"
    assert sum(model.sizes) == 31
    assert used.deliveries == len(model.sizes), "one delivery per batch"


def test_a_batch_explains_only_for_those_who_ask(bench) -> None:
    model = Arithmetic(0)
    used = bench(baseline=model)
    used.wait(used.put("baseline", [1, 2, 3]))
    assert model.explained == [], "nobody asked"
    model.gate.clear()
    first = used.put("baseline", [0])
    until(lambda: used.scheduler.depth == 0)
    asking, silent = used.put("baseline", [7, 8], explain=2), used.put("baseline", [9])
    model.gate.set()
    for ticket in (first, asking, silent):
        used.wait(ticket)
    assert sorted(model.explained) == [[2, 2, 0]], "one batch"
    assert [outcome.heat_maps.bias[0] for outcome in asking.outcomes] == [7, 8]
    assert silent.outcomes[0].heat_maps is None
    assert silent.outcomes[0].logits[0] == 9


def test_an_image_that_breaks_an_explained_batch_is_the_only_one_to_fail(bench) -> None:
    model = Arithmetic(0)
    used = bench(baseline=model)
    ticket = used.wait(used.put("baseline", [5, 6, 7], frozenset({1}), explain=1))
    assert [outcome.heat_maps is None for outcome in ticket.outcomes] == [False, True, False]
    assert isinstance(ticket.outcomes[1].failure, InferenceError)


def test_only_the_guilty_image_of_a_failing_batch_fails(bench) -> None:
    model = Arithmetic(0)
    used = bench(baseline=model)
    model.gate.clear()
    used.put("baseline", [0])
    until(lambda: used.scheduler.depth == 0)
    good = [used.put("baseline", [number]) for number in range(1, 6)]
    bad = used.put("baseline", [6, 7, 8], poison=frozenset({1}))
    model.gate.set()
    for number, ticket in enumerate(good, start=1):
        assert int(used.wait(ticket).outcomes[0].logits[0]) == number
    outcomes = used.wait(bad).outcomes
    assert [outcome.failure is None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].failure, InferenceError)


def test_the_engine_goes_on_after_a_failure(bench) -> None:
    used = bench(baseline=Arithmetic(0))
    used.wait(used.put("baseline", [1], poison=frozenset({0})))
    assert used.wait(used.put("baseline", [2])).outcomes[0].failure is None
    assert used.scheduler.alive


@pytest.mark.parametrize("scores", [np.full((1, 2), np.nan, np.float32), np.zeros((2, 2), np.float32)])
def test_scores_that_cannot_be_right_are_a_failure(bench, scores: np.ndarray) -> None:
    class Wrong(Arithmetic):
        def run(self, x: np.ndarray) -> np.ndarray:
            return scores

    used = bench(baseline=Wrong(0))
    assert used.wait(used.put("baseline", [1])).outcomes[0].failure is not None


def test_a_cancelled_request_is_not_run(bench) -> None:
    model = Arithmetic(0)
    used = bench(baseline=model)
    model.gate.clear()
    first = used.put("baseline", [0])
    until(lambda: used.scheduler.depth == 0)
    gone = used.put("baseline", [1, 2, 3])
    used.scheduler.cancel(gone)
    last = used.put("baseline", [4])
    model.gate.set()
    used.wait(first)
    used.wait(last)
    assert model.sizes == [1, 1]
    assert not used.done[gone].is_set()


def test_tensors_and_pixels_are_answered_side_by_side(bench) -> None:
    class Either(Arithmetic):
        def run(self, x: np.ndarray) -> np.ndarray:
            if x.dtype == np.uint8:
                return super().run(x)
            assert x.shape[1:] == (3, 224, 224)
            return np.stack([x[:, 0, 0, 0], x[:, 0, 0, 0] * 0], axis=1)

    used = bench(baseline=Either(0))
    tickets = []
    for number in range(20):
        tensors = np.full((3, 3, 224, 224), -number, np.float32)
        ticket = used.scheduler.admit("baseline", 3, dtype="float32")
        used.done[ticket] = threading.Event()
        used.scheduler.submit(ticket, tensors)
        tickets.append((-number, ticket))
        tickets.append((number, used.put("baseline", [number] * 3)))
    for expected, ticket in tickets:
        assert [outcome.logits[0] for outcome in used.wait(ticket).outcomes] == [expected] * 3


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((2, 224, 224, 3), np.float32),
        np.zeros((2, 3, 224, 224), np.uint8),
        np.zeros((3, 224, 224, 3), np.uint8),
        [],
    ],
)
def test_rows_that_were_not_admitted_are_refused(bench, rows) -> None:
    used = bench(baseline=Arithmetic(0))
    ticket = used.scheduler.admit("baseline", 2)
    with pytest.raises(ValueError, match="needs 2 rows"):
        used.scheduler.submit(ticket, rows)
    used.scheduler.cancel(ticket)
    assert used.scheduler.depth == 0


def test_a_request_whose_time_is_over_is_told_so(bench) -> None:
    model = Arithmetic(0)
    used = bench(baseline=model)
    model.gate.clear()
    first = used.put("baseline", [0])
    until(lambda: used.scheduler.depth == 0)
    late = used.scheduler.admit("baseline", 1, deadline=time.perf_counter() + 600)
    used.done[late] = threading.Event()
    used.scheduler.submit(late, np.zeros((1, 224, 224, 3), np.uint8))
    late.deadline = time.perf_counter()  # as if it had waited that long
    model.gate.set()
    used.wait(first)
    assert isinstance(used.wait(late).failure, DeadlineExceededError)
    assert model.sizes == [1]


def test_background_runs_on_an_idle_engine_and_after_a_cancelled_request(bench) -> None:
    used = bench(baseline=Arithmetic(0))
    decoding = used.scheduler.admit("baseline", 1)
    shadow = used.scheduler.admit("baseline", 2, priority=Priority.BACKGROUND)
    used.done[shadow] = threading.Event()
    used.scheduler.submit(shadow, np.zeros((2, 224, 224, 3), np.uint8))
    used.scheduler.cancel(decoding)
    used.wait(shadow)


def test_the_live_state_tells_what_hangs(bench) -> None:
    model = Arithmetic(0)
    used = bench(baseline=model)
    model.gate.clear()
    ticket = used.put("baseline", [0])
    until(lambda: used.scheduler.snapshot().running_seconds > 0.05)
    assert used.scheduler.snapshot().oldest_seconds > 0.05
    model.gate.set()
    used.wait(ticket)
    state = used.scheduler.snapshot()
    assert (state.running_seconds, state.oldest_seconds) == (0, 0)
    assert state.variants["baseline"].batches[1].batches == 1


def test_batches_overlap_as_far_as_the_sessions_allow(bench) -> None:
    models = {"baseline": Arithmetic(0, 3), "optimised": Arithmetic(1000, 3)}
    used = bench(**models)
    for model in models.values():
        model.gate.clear()
    tickets = []
    for number in range(3):
        tickets.append(used.put(("baseline", "optimised")[number % 2], [number]))
        until(lambda: sum(model.inside for model in models.values()) == len(tickets))
    tickets += [used.put("baseline", [number]) for number in range(3, 9)]
    assert used.scheduler.depth == 6, "what does not fit gathers"
    assert used.scheduler.snapshot().running_seconds > 0
    for model in models.values():
        model.gate.set()
    for number, ticket in enumerate(tickets):
        score = int(used.wait(ticket).outcomes[0].logits[0])
        assert score == (number + 1000 if ticket.variant == "optimised" else number)
    assert sum(model.most_inside for model in models.values()) >= 3
    assert used.counts.share < used.counts.seconds, "a moment in which three ran counts once"


def test_fewer_run_at_once_while_a_device_is_out_and_all_again_when_it_is_back(bench) -> None:
    model = Arithmetic(0, 2)
    used = bench(baseline=model)
    model.parallel_runs = 1
    model.gate.clear()
    tickets = [used.put("baseline", [0])]
    until(lambda: model.inside == 1)
    tickets.append(used.put("baseline", [1]))
    time.sleep(0.05)
    assert (model.inside, used.scheduler.depth) == (1, 1)
    model.parallel_runs = 2
    tickets.append(used.put("baseline", [2]))
    until(lambda: model.inside == 2)
    model.gate.set()
    assert [int(used.wait(ticket).outcomes[0].logits[0]) for ticket in tickets] == [0, 1, 2]


def test_a_swap_waits_for_every_batch_of_the_session_before(bench) -> None:
    before, after = Arithmetic(0, 2), Arithmetic(1000, 2)
    used = bench(baseline=before)
    before.gate.clear()
    old = []
    for number in range(2):
        old.append(used.put("baseline", [number]))
        until(lambda: before.inside == len(old))
    with ThreadPoolExecutor(1) as threads:
        swap = threads.submit(used.scheduler.replace, "baseline", after)
        time.sleep(0.05)
        assert not swap.done()
        before.gate.set()
        assert swap.result(NEVER) is before
    assert before.inside == 0
    assert [int(used.wait(ticket).outcomes[0].logits[0]) for ticket in old] == [0, 1]
    assert int(used.wait(used.put("baseline", [5])).outcomes[0].logits[0]) == 1005
