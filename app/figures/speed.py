"""Paired measurements of speed: interleaved runs in one process, so that a slow moment hits all sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean, median
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera import engine
from tessera.app.figures.documents import MeasurementBody
from tessera.models.evaluation.intervals import Interval, median_interval

BATCHES = (1, 16)
# More different images than a batch holds, so that no run sees what the run before it left in the caches.
ROTATION = 3


@dataclass(frozen=True)
class Row:
    """One variant at one batch size: seconds of every round, and how its answers compare with the first variant's."""

    variant: str
    batch: int
    seconds: list[float]
    stages: dict[str, list[float]]
    utilisation: float
    agreement: float


def measure(
    sessions: Mapping[str, engine.Session],
    pool: npt.NDArray[Any],
    batch: int,
    rounds: int,
    progress: Callable[[str, float], None],
) -> list[Row]:
    """Every round runs every session once on the same images; rounds take different images.

    Args:
        sessions: By name; the first is what others are compared with.
        pool: Images as the sessions take them, more than a batch.
        batch: Images of a run.
        rounds: How many are timed.
        progress: Told about it: (stage, fraction of the stage).
    """
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    stages: dict[str, dict[str, list[float]]] = {name: {} for name in sessions}
    labels: dict[str, list[npt.NDArray[np.intp]]] = {name: [] for name in sessions}
    for number in range(-1, rounds):  # round -1 warms up
        images = np.roll(pool, -batch * (number + 1), axis=0)[:batch].copy()
        for name, session in sessions.items():
            started = time.perf_counter()
            logits, parts = session.run_in_stages(images)
            elapsed = time.perf_counter() - started
            if number >= 0:
                seconds[name].append(elapsed)
                for stage, part in parts.items():
                    stages[name].setdefault(stage, []).append(part)
                labels[name].append(logits.argmax(axis=1))
        progress(f"batch {batch}", (number + 1) / rounds)
    reference = np.concatenate(next(iter(labels.values())))
    rows = []
    for name, session in sessions.items():
        info = session.describe()
        peak = session.peak()
        utilisation = info.macs * batch / median(seconds[name]) / peak if peak else float("nan")
        agreement = float((np.concatenate(labels[name]) == reference).mean())
        rows.append(Row(name, batch, seconds[name], stages[name], utilisation, agreement))
    return rows


def speed_up(row: Row, rows: Sequence[Row]) -> Interval:
    """Against the first session at the same batch size: median of the ratios within rounds, with its interval."""
    first = next(other for other in rows if other.batch == row.batch)
    return median_interval([a / b for a, b in zip(first.seconds, row.seconds, strict=True)])


def describe_row(row: Row, rows: Sequence[Row]) -> MeasurementBody:
    """The same for a document."""
    found = speed_up(row, rows)
    return MeasurementBody(
        variant=row.variant,
        batch=row.batch,
        seconds=row.seconds,
        milliseconds=median(row.seconds) * 1e3,
        mean_milliseconds=fmean(row.seconds) * 1e3,
        stages=row.stages,
        images_per_second=row.batch / median(row.seconds),
        peak_share=None if isnan(row.utilisation) else row.utilisation,
        speed_up=found.value,
        speed_up_low=found.low,
        speed_up_high=found.high,
        agreement=row.agreement,
    )
