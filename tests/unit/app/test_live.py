"""Snapshots of what the service does: made of the metrics' text, once a second for all who watch."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import generate_latest

from tessera.app.observability import live
from tessera.app.observability.live import LiveFeed, Snapshot, compare, read
from tessera.app.observability.metrics import Metrics

BEFORE = """
# HELP tessera_images_total x
tessera_images_total{variant="optimised"} 100.0
tessera_request_duration_seconds_bucket{le="0.01",outcome="ok",variant="optimised"} 10.0
tessera_request_duration_seconds_bucket{le="0.02",outcome="ok",variant="optimised"} 10.0
tessera_request_duration_seconds_bucket{le="+Inf",outcome="ok",variant="optimised"} 10.0
tessera_request_duration_seconds_bucket{le="+Inf",outcome="queue_full",variant="optimised"} 7.0
tessera_batch_size_count{variant="optimised"} 5.0
tessera_batch_size_sum{variant="optimised"} 20.0
tessera_queue_depth_images 0.0
tessera_engine_busy_ratio 0.25
tessera_compute_utilisation_ratio{variant="baseline"} 0.5
"""
NOW = """
tessera_images_total{variant="optimised"} 150.0
tessera_request_duration_seconds_bucket{le="0.01",outcome="ok",variant="optimised"} 30.0
tessera_request_duration_seconds_bucket{le="0.02",outcome="ok",variant="optimised"} 50.0
tessera_request_duration_seconds_bucket{le="+Inf",outcome="ok",variant="optimised"} 50.0
tessera_request_duration_seconds_bucket{le="+Inf",outcome="queue_full",variant="optimised"} 99.0
tessera_batch_size_count{variant="optimised"} 10.0
tessera_batch_size_sum{variant="optimised"} 70.0
tessera_queue_depth_images 3.0
tessera_engine_busy_ratio 0.75
tessera_compute_utilisation_ratio{variant="baseline"} 0.5
"""


def test_a_snapshot_is_of_what_has_changed() -> None:
    assert compare(read(BEFORE), read(NOW), 5.0, 1000.0) == {
        "time": 1000.0,
        "queue": 3.0,
        "busy": 0.75,
        "variants": {
            "baseline": {
                "images_per_second": 0.0,
                "p50_ms": None,
                "p99_ms": None,
                "batch_size": None,
                "peak_share": 0.5,
            },
            "optimised": {
                "images_per_second": 10.0,
                "p50_ms": 10.0,  # 20 of the 40 took at most so long
                "p99_ms": pytest.approx(19.8),
                "batch_size": 10.0,
                "peak_share": None,
            },
        },
    }


def test_latencies_beyond_the_last_bound_are_told_as_that_bound() -> None:
    slow = 'tessera_request_duration_seconds_bucket{le="%s",outcome="ok",variant="a"} %s\n'
    now = read('tessera_images_total{variant="a"} 1.0\n' + slow % ("2.5", 0.0) + slow % ("+Inf", 4.0))
    assert compare(read(""), now, 1.0, 0.0)["variants"]["a"]["p99_ms"] == 2500.0


def test_the_real_metrics_have_all_that_is_read() -> None:
    metrics = Metrics()
    metrics.batch_size.labels("optimised").observe(4)
    metrics.images.labels("optimised").inc()
    metrics.request_duration.labels("optimised", "ok").observe(0.1)
    metrics.compute_utilisation.labels("optimised").set(0.5)
    found = read(generate_latest(metrics.registry).decode())
    assert [name for name, series in found.items() if not series] == []


def test_one_snapshot_is_made_for_all_who_watch_and_none_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.01)
    rendered = 0

    async def render() -> str:
        nonlocal rendered
        rendered += 1
        if rendered == 3:
            raise RuntimeError("the supervisor restarts")
        return NOW

    async def take(feed: LiveFeed, count: int) -> list[Snapshot]:
        watching = feed.watch()
        seen = [await anext(watching) for _ in range(count)]
        await watching.aclose()
        return seen

    async def scenario() -> None:
        feed = LiveFeed(render)
        first, second = await asyncio.gather(take(feed, 5), take(feed, 5))
        assert first == second
        assert len({snapshot["time"] for snapshot in first}) == 5, "a second without metrics has no snapshot"
        made = rendered
        await asyncio.sleep(0.1)
        assert rendered <= made + 1, "nobody watches"
        assert await take(feed, 2), "and it begins again"

    asyncio.run(scenario())
