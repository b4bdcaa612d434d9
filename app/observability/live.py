"""What the service does now: a snapshot a second, made of the metrics once for all who watch, while somebody does."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import pairwise
from typing import TypedDict

INTERVAL = 1.0  # seconds
WINDOW = 5  # intervals that rates and quantiles are of; one would hold too few requests

_LINE = re.compile(r"(tessera_\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_IMAGES = "tessera_images_total"
_LATENCY = "tessera_request_duration_seconds_bucket"
_BATCHES, _BATCHED = "tessera_batch_size_count", "tessera_batch_size_sum"
_QUEUE, _BUSY = "tessera_queue_depth_images", "tessera_engine_busy_ratio"
_UTILISATION = "tessera_compute_utilisation_ratio"
_NEEDED = (_IMAGES, _LATENCY, _BATCHES, _BATCHED, _QUEUE, _BUSY, _UTILISATION)

Samples = Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]


class VariantNow(TypedDict):
    """One variant over the last seconds; None: nothing ran."""

    images_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    batch_size: float | None
    peak_share: float | None


class Snapshot(TypedDict):
    """The service over the last seconds.

    `time` is seconds since 1970, `queue` images that wait, `busy` the share of the last minute in which batches ran.
    """

    time: float
    queue: float
    busy: float
    variants: dict[str, VariantNow]


class LiveFeed:
    """Makes the snapshots.

    Args:
        render: The metrics of all processes, as text for Prometheus.
    """

    def __init__(self, render: Callable[[], Awaitable[str]]) -> None:
        self._render = render
        self._viewers = 0
        self._maker: asyncio.Task[None] | None = None
        self._latest: asyncio.Future[Snapshot] | None = None

    async def watch(self) -> AsyncIterator[Snapshot]:
        """Every snapshot from now on. Whoever is slow misses some."""
        self._viewers += 1
        if self._maker is None:
            self._latest = asyncio.get_running_loop().create_future()
            self._maker = asyncio.create_task(self._make())
        try:
            while True:
                assert self._latest is not None
                yield await asyncio.shield(self._latest)
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._maker.cancel()
                self._maker = None

    async def _make(self) -> None:
        seen: deque[tuple[float, Samples]] = deque(maxlen=WINDOW + 1)
        while True:
            try:
                seen.append((time.time(), read(await self._render())))
            except Exception:  # of a supervisor that restarts: this second has no snapshot
                pass
            else:
                self._tell(seen)
            await asyncio.sleep(INTERVAL)

    def _tell(self, seen: deque[tuple[float, Samples]]) -> None:
        """Make a snapshot, where there are two times to compare, and have all who watch go on."""
        if len(seen) > 1:
            told, self._latest = self._latest, asyncio.get_running_loop().create_future()
            assert told is not None
            told.set_result(compare(seen[0][1], seen[-1][1], seen[-1][0] - seen[0][0], seen[-1][0]))


def read(text: str) -> Samples:
    """The metrics that a snapshot needs, by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {name: {} for name in _NEEDED}
    for line in text.splitlines():
        if line.startswith(_NEEDED) and (parts := _LINE.fullmatch(line)) and parts[1] in found:
            labels = tuple(sorted(_LABEL.findall(parts[2] or "")))
            found[parts[1]][labels] = float(parts[3])
    return found


def compare(before: Samples, now: Samples, seconds: float, at: float) -> Snapshot:
    """Make a snapshot of what has changed.

    Args:
        before: Samples of some seconds ago.
        now: Those of now.
        seconds: Between both.
        at: When now is, in seconds since 1970.
    """
    variants = sorted({dict(labels).get("variant", "") for labels in (*now[_IMAGES], *now[_UTILISATION])} - {""})
    return {
        "time": round(at, 3),
        "queue": sum(now[_QUEUE].values()),
        "busy": max(now[_BUSY].values(), default=0.0),
        "variants": {name: _variant(before, now, seconds, name) for name in variants},
    }


def _variant(before: Samples, now: Samples, seconds: float, name: str) -> VariantNow:
    def grown(metric: str) -> float:
        return _of(now[metric], name) - _of(before[metric], name)

    batches, buckets = grown(_BATCHES), _buckets(before[_LATENCY], now[_LATENCY], name)
    return {
        "images_per_second": grown(_IMAGES) / seconds,
        "p50_ms": _quantile(buckets, 0.5),
        "p99_ms": _quantile(buckets, 0.99),
        "batch_size": grown(_BATCHED) / batches if batches else None,
        "peak_share": _of(now[_UTILISATION], name) or None,
    }


def _of(series: Mapping[tuple[tuple[str, str], ...], float], variant: str) -> float:
    return sum(value for labels, value in series.items() if ("variant", variant) in labels)


def _buckets(
    before: Mapping[tuple[tuple[str, str], ...], float], now: Mapping[tuple[tuple[str, str], ...], float], variant: str
) -> list[tuple[float, float]]:
    """Upper bounds in seconds and how many good answers took at most so long."""
    wanted = {("variant", variant), ("outcome", "ok")}
    counted = [
        (float(dict(labels)["le"]), count - before.get(labels, 0.0))
        for labels, count in now.items()
        if wanted <= set(labels)
    ]
    return sorted(counted)


def _quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """In milliseconds, between the bounds of its bucket as Prometheus estimates it; None without requests."""
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    for (low, below), (high, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank:
            return 1000 * (low if high == float("inf") else low + (high - low) * (rank - below) / (count - below))
    return None
