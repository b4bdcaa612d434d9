"""Profiles of a model's variants as a document: one source of figures for tables, the page and reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import numpy.typing as npt

from tessera import engine
from tessera.app.figures.documents import LayerBody, ProfileDocument, ReadsBody, SummaryBody, describe
from tessera.app.served.loading import open_session
from tessera.app.settings import Settings
from tessera.engine.backends import BACKENDS
from tessera.models.registry import Model


def profile_variants(
    model: Model,
    settings: Settings,
    images: npt.NDArray[np.uint8],
    runs: int,
    *,
    only: str | None = None,
    visit: Callable[[str, engine.Session], None] = lambda name, session: None,
) -> ProfileDocument:
    """Profile the variants one after the other, so that no two are in memory at once.

    Args:
        model: The model.
        settings: How its variants are loaded.
        images: The batch, uint8 [N, height, width, 3].
        runs: How many runs the medians are of.
        only: This variant alone; None: all.
        visit: Called with each variant's name and open session after its profile.
    """
    described, layers, reads, machine, caches = {}, {}, None, "", dict[str, int]()
    for name, variant in model.variants.items():
        if only not in (None, name):
            continue
        with open_session(variant, settings) as session:
            rows = session.profile(images, runs=runs)
            reads = reads or session.reads()
            info = session.describe()
            machine, caches = BACKENDS[info.backend].machine(info), BACKENDS[info.backend].caches(info)
            described[name] = describe(session)
            layers[name] = [LayerBody.model_validate(row, from_attributes=True) for row in rows]
            visit(name, session)
    return ProfileDocument(
        model=model.name,
        machine=machine,
        variants=described,
        batch=len(images),
        runs=runs,
        reads=None if reads is None else ReadsBody(**asdict(reads)),
        summaries={name: summarise(rows, len(images), caches) for name, rows in layers.items()},
        layers=layers,
    )


def summarise(rows: Sequence[LayerBody], batch: int, caches: dict[str, int]) -> SummaryBody:
    """Put the layers of a variant together.

    Args:
        rows: Its layers.
        batch: How many images they are of.
        caches: Bytes of the caches by name; without L2 nothing counts as cached.
    """
    small = [row for row in rows if row.layer_class.startswith("3x3")]
    milliseconds, moved = _sum(rows, "milliseconds"), _sum(rows, "bytes_moved")
    cached = [row for row in rows if row.working_set <= caches.get("L2", 0)]
    return SummaryBody(
        milliseconds=milliseconds,
        milliseconds_3x3=_sum(small, "milliseconds"),
        images_per_second=batch / milliseconds * 1e3 if milliseconds else 0.0,
        peak_share=_share_of_peak(rows),
        peak_share_3x3=_share_of_peak(small),
        macs_per_byte=_sum(rows, "macs") / max(1.0, moved),
        cache_share=_sum(cached, "bytes_moved") / moved if moved else 0.0,
        mac_ratio=_mean_counted(rows, lambda row: row.mac_ratio),
        core_share=_mean_counted(rows, lambda row: row.core_share),
        bandwidths=_mean_bandwidths(rows),
    )


def _sum(rows: Sequence[LayerBody], field: str) -> float:
    total: float = sum(getattr(row, field) for row in rows)
    return total


def _share_of_peak(rows: Sequence[LayerBody]) -> float:
    """MAC/s of all rows together over the peak: the mean of their shares, weighted by time."""
    total = _sum(rows, "milliseconds")
    return sum(row.peak_share * row.milliseconds for row in rows) / total if total else 0.0


def _mean_counted(rows: Sequence[LayerBody], counter: Callable[[LayerBody], float | None]) -> float | None:
    """Mean over all time of what a device counted; None where it counts no such thing."""
    counted = [(row.milliseconds, value) for row in rows if (value := counter(row)) is not None]
    total = _sum(rows, "milliseconds")
    return sum(time * value for time, value in counted) / total if counted and total else None


def _mean_bandwidths(rows: Sequence[LayerBody]) -> dict[str, float]:
    buffers = dict.fromkeys(buffer for row in rows for buffer in row.bandwidths)
    means = {buffer: _mean_counted(rows, partial(_bandwidth, buffer)) for buffer in buffers}
    return {buffer: mean for buffer, mean in means.items() if mean is not None}


def _bandwidth(buffer: str, row: LayerBody) -> float | None:
    return row.bandwidths.get(buffer)
