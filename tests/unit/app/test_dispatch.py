"""The parts of the dispatch between processes that can be looked at alone."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from tessera.app.errors import DeadlineUnreachableError, DeviceFailedError, QueueFullError
from tessera.app.observability.merge import Ledger, registry_to_json
from tessera.app.processes.child_process import configure
from tessera.app.processes.heat_maps import pack_heat_maps, unpack_heat_maps
from tessera.app.processes.messages import (
    Channel,
    Kind,
    Message,
    Request,
    pack_error,
    pack_file,
    pair,
    unpack_error,
    unpack_file,
)
from tessera.app.processes.shared_rows import SLOTS_PER_ROW, SlotAllocator, SlotArea, SlotLayout, create_slots
from tessera.app.processes.status_page import StatusPage, create_status_page
from tessera.app.processes.watchdog import ExpectedSeconds, batch_limit
from tessera.app.scheduling.latency import BatchStatistics
from tessera.app.scheduling.snapshot import Snapshot, VariantSnapshot
from tessera.app.scheduling.ticket import HeatMaps, Outcome, Priority
from tessera.app.served.model import ServedModel, ServedVariant
from tessera.app.settings import Settings
from tessera.models.preprocessing.transform import Preprocessing


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=60))
def test_slots_are_never_given_twice_and_all_come_back(steps: list[tuple[bool, int]]) -> None:
    allocator, taken = SlotAllocator(32), []
    for take, size in steps:
        if take and (first := allocator.take(size)) is not None:
            wanted = set(range(first, first + size))
            assert wanted <= set(range(32))
            assert not any(wanted & set(range(start, start + length)) for start, length in taken)
            taken.append((first, size))
        elif not take and taken:
            allocator.give(*taken.pop(size % len(taken)))
    for first, size in taken:
        allocator.give(first, size)
    assert allocator.take(32) == 0


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [224, 299, 31])  # rows of an odd size end at odd addresses; small ones hold few scores
def test_rows_and_outcomes_pass_through_shared_memory(dtype: str, size: int) -> None:
    layout = SlotLayout(size, 1000)
    file = create_slots(16, layout)
    frontend, engine = SlotArea(file, layout), SlotArea(file, layout)
    os.close(file)
    rows = frontend.rows(4, 2, dtype)  # type: ignore[arg-type]
    assert rows.shape == ((2, size, size, 3) if dtype == "uint8" else (2, 3, size, size))
    assert rows.flags.aligned
    assert rows.flags.c_contiguous
    rows[:] = np.arange(rows.size).reshape(rows.shape) % 251
    assert np.array_equal(engine.rows(4, 2, dtype), rows)  # type: ignore[arg-type]
    step = SLOTS_PER_ROW[dtype]  # type: ignore[index]
    scores = np.linspace(-1, 1, 1000, dtype=np.float32)
    engine.write_outcome(4, 77, Outcome(scores, None, 0.25, 0.5, 3))
    engine.write_outcome(4 + step, 77, Outcome(None, DeviceFailedError(""), 0.25, 0.5, 3))
    first, second = (frontend.read_outcome(4 + step * index, 77) for index in range(2))
    assert np.array_equal(first.logits, scores)
    assert (first.queue_seconds, first.compute_seconds, first.batch_size) == (0.25, 0.5, 3)
    assert second.logits is None
    assert isinstance(second.failure, DeviceFailedError)
    assert np.array_equal(engine.rows(4, 2, dtype), rows), "scores do not touch the rows: a retry needs them"  # type: ignore[arg-type]


def test_an_outcome_of_another_request_is_never_taken() -> None:
    layout = SlotLayout(224, 3)
    file = create_slots(4, layout)
    area = SlotArea(file, layout)
    os.close(file)
    area.write_outcome(0, 1, Outcome(np.ones(3, np.float32), None, 0.0, 0.0, 1))
    assert area.read_outcome(0, 2).logits is None
    with pytest.raises(ValueError, match="not within 4"):
        area.rows(3, 2, "uint8")


def test_messages_keep_their_order_even_when_nobody_reads_for_a_while() -> None:
    async def run() -> list[Message]:
        ours, theirs = pair()
        heard: list[Message] = []
        ended = asyncio.Event()
        sender = Channel(ours, heard.append, ended.set)
        for number in range(5000):
            files = (pack_file(b"%d" % number),) if number % 1000 == 0 else ()
            sender.send(Message(Kind.ADMIT, number, number << 40, b"x" * (number % 300), files))
        receiver = Channel(theirs, heard.append, ended.set)
        while len(heard) < 5000:
            await asyncio.sleep(0.001)
        sender.close()
        await asyncio.wait_for(ended.wait(), 10)
        receiver.close()
        return heard

    for number, message in enumerate(asyncio.run(run())):
        assert message[:4] == (Kind.ADMIT, number, number << 40, b"x" * (number % 300))
        assert [unpack_file(file) for file in message.files] == ([b"%d" % number] if number % 1000 == 0 else [])


def test_heat_maps_survive_the_way() -> None:
    random = np.random.default_rng(0)
    images = [
        HeatMaps(random.permutation(9)[:3], random.random(3, np.float32), random.random((3, 7, 5), np.float32))
        for _ in range(4)
    ]
    for sent, came in zip(images, unpack_heat_maps(pack_heat_maps(images)), strict=True):
        for one, other in zip(sent, came, strict=True):
            np.testing.assert_array_equal(one, other)


def test_requests_errors_and_models_survive_the_way() -> None:
    request = Request(3, 64, 1, 2, 12345.678, alone=True, explain=7)
    assert Request.unpack(request.pack()) == request
    error = unpack_error(pack_error(QueueFullError("full: 3 of 3", retry_after=4)))
    assert (type(error), error.message, error.retry_after) == (QueueFullError, "full: 3 of 3", 4)
    onnx = ServedVariant(
        name="v",
        path=Path("/models/v.onnx"),
        backend="cpu",
        precision="int8",
        note="note",
        gate={"met": True, "images": 8},
        platform="tessera_onnx",
        isa="avx2",
        threads=2,
        macs=10,
        arena_bytes=20,
        peak=None,
        batch_seconds={1: 0.5, 16: 4.0},
    )
    om = replace(
        onnx, path=Path("v.om"), graph=Path("v.onnx"), mean=(0.5, 0.25), std=(1.0, 2.0), peak=1e9, loaded=False
    )
    preprocessing = Preprocessing(size=288, resize=320, std=(1.0, 0.5, 0.25), interpolation="bicubic")
    model = ServedModel("m", ("a", "ä"), "data", "scores", preprocessing, {"v": onnx, "w": om})
    assert ServedModel.from_json(model.to_json()) == model


def test_settings_survive_the_way() -> None:
    settings = Settings(model_path="some/where", frontends=3, drain_seconds=1.5)
    told = json.loads(configure({"known": None}, settings))
    assert told.pop("known") is None
    assert Settings(**told["settings"]) == settings


def status_page() -> StatusPage:
    file = create_status_page()
    shown = StatusPage(file)
    os.close(file)
    return shown


def snapshot(depth: int, predicted: float) -> Snapshot:
    rows = {1: BatchStatistics(3, 0.3, 0.1, 0.2)}
    depths = {Priority.HIGH: 0, Priority.NORMAL: depth, Priority.BACKGROUND: 7}
    return Snapshot({"v": VariantSnapshot(depths, predicted, rows)}, 0.5, 1.5, parallel=2)


def test_the_status_page_refuses_what_the_engine_would() -> None:
    shown = status_page()
    assert shown.snapshot() == Snapshot({}, 0.0, 0.0)
    shown.show(snapshot(6, 5.0))
    assert shown.snapshot() == snapshot(6, 5.0)
    ask = {"capacity": 8, "priority": Priority.NORMAL}
    shown.check_room(0, 2, deadline=None, **ask)
    with pytest.raises(QueueFullError) as full:
        shown.check_room(0, 3, deadline=None, **ask)
    assert full.value.retry_after == 5
    shown.check_room(0, 1, deadline=time.perf_counter() + 60, **ask)
    with pytest.raises(DeadlineUnreachableError) as late:
        shown.check_room(0, 1, deadline=time.perf_counter() + 1.5, **ask)
    assert late.value.retry_after == 4
    shown.check_room(0, 1, deadline=0.0, capacity=8, priority=Priority.HIGH)
    shown.show(snapshot(0, 5.0))
    running = [shown.batch_started(limit=1.0)]
    shown.check_room(0, 1, deadline=0.0, **ask)  # another batch may run beside it: the engine decides
    running.append(shown.batch_started(limit=1.0))
    with pytest.raises(DeadlineUnreachableError):
        shown.check_room(0, 1, deadline=0.0, **ask)
    for place in running:
        shown.batch_ended(place)
    shown.check_room(0, 1, deadline=0.0, **ask)
    shown.wipe()
    shown.check_room(0, 8, deadline=0.0, **ask)  # idle: the engine decides


def test_the_next_engine_process_does_not_look_like_a_silent_frontend() -> None:
    shown = status_page()
    shown.frontend_beat(63)
    shown.beat()
    shown.show(snapshot(6, 5.0))
    shown.wipe()
    assert (shown.frontend_heartbeat(63), shown.frontend_heartbeat(62), shown.heartbeat) == (1, 0, 0)


def test_the_limit_of_a_batch_follows_what_batches_take() -> None:
    expected = ExpectedSeconds({1: 0.1, 16: 0.8})
    assert expected.of(16) == pytest.approx(1.6)
    for _ in range(100):
        expected.observe(10, 10.0)
    assert expected.of(1) == pytest.approx(1.0, rel=0.01)
    assert batch_limit(0.001) == batch_limit(0.01)
    assert batch_limit(10.0) > 100.0


def test_a_batch_over_its_limit_shows_on_the_status_page() -> None:
    shown = status_page()
    assert shown.overdue is None
    in_time = shown.batch_started(limit=1e9)
    assert shown.overdue is None
    late, later = shown.batch_started(limit=-1.0), shown.batch_started(limit=-1e9)
    assert shown.overdue is not None
    assert shown.overdue.limit == -1e9
    shown.batch_ended(later)
    assert shown.overdue is not None
    assert shown.overdue.limit == -1.0
    shown.batch_ended(late)
    assert shown.overdue is None
    shown.batch_ended(in_time)
    shown.batch_ended(shown.batch_started(limit=-1.0))
    assert shown.overdue is None


def registry(requests: int, depth: int) -> bytes:
    made = CollectorRegistry()
    counter = Counter("requests", "r", ("who",), registry=made)
    counter.labels("a").inc(requests)
    Gauge("depth", "d", registry=made).set(depth)
    histogram = Histogram("seconds", "s", buckets=(1, 2), registry=made)
    for _ in range(requests):
        histogram.observe(1.5)
    return registry_to_json(made)


def test_sums_never_go_backwards_when_a_process_ends() -> None:
    ledger = Ledger()

    def sums() -> dict[str, float]:
        body, _ = ledger.render("")
        families = text_string_to_metric_families(body.decode())
        return {s.name + s.labels.get("le", ""): s.value for family in families for s in family.samples}

    ledger.update("one", registry(3, 10))
    ledger.update("two", registry(4, 20))
    both = sums()
    assert (both["requests_total"], both["depth"], both["seconds_bucket2.0"], both["seconds_count"]) == (7, 30, 7, 7)
    assert both["seconds_bucket1.0"] == 0
    ledger.retire("one")
    assert (sums()["requests_total"], sums()["depth"], sums()["seconds_sum"]) == (7, 20, 10.5)
    ledger.update("three", registry(1, 1))
    ledger.update("three", registry(2, 1))
    assert (sums()["requests_total"], sums()["depth"]) == (9, 21)
    openmetrics, kind = ledger.render("application/openmetrics-text; version=1.0.0")
    assert "openmetrics" in kind
    assert openmetrics.endswith(b"# EOF\n")
