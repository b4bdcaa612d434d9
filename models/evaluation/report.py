"""Results of an evaluation as plain data, ready for JSON."""

from __future__ import annotations

import math
from typing import TypedDict

from tessera.models.evaluation.intervals import sign_test, wilson_interval
from tessera.models.evaluation.state import Block
from tessera.models.evaluation.tally import Tally


class Share(TypedDict):
    """A count, its share of all photos, and the ends of the share's 95 % interval (Wilson)."""

    count: int
    share: float
    low: float
    high: float


class VariantResult(TypedDict):
    """One variant. The last four are against the first variant, on the same photos.

    `sqnr_db` is null where the logits are equal. `lost` and `gained` are photos that only the other, or only this one,
    gets right; `p_value` is that of the sign test: how likely a split as uneven is between variants equally good.
    """

    top1: Share
    top5: Share
    agreement: Share
    sqnr_db: float | None
    lost: int
    gained: int
    p_value: float


class Result(TypedDict):
    """All variants, and the photos they were counted on."""

    photos: int
    unreadable: int
    unreadable_names: list[str]
    seconds: float
    images_per_second: float
    variants: dict[str, VariantResult]


def result(block: Block) -> Result:
    """What was counted, with its uncertainty."""
    return {
        "photos": block.photos - block.unreadable,
        "unreadable": block.unreadable,
        "unreadable_names": block.named,
        "seconds": round(block.seconds, 3),
        "images_per_second": round(block.photos / block.seconds, 3) if block.seconds > 0 else 0.0,
        "variants": {name: _variant(tally) for name, tally in block.tallies.items()},
    }


def _variant(tally: Tally) -> VariantResult:
    decibels = tally.decibels
    return {
        "top1": _share(tally.top1, tally.photos),
        "top5": _share(tally.top5, tally.photos),
        "agreement": _share(tally.agreeing, tally.photos),
        "sqnr_db": round(decibels, 3) if math.isfinite(decibels) else None,
        "lost": tally.lost,
        "gained": tally.gained,
        "p_value": sign_test(tally.lost, tally.gained),
    }


def _share(count: int, photos: int) -> Share:
    interval = wilson_interval(count, photos)
    if interval is None:  # nothing was counted, so nothing is known
        return {"count": 0, "share": 0.0, "low": 0.0, "high": 1.0}
    return {"count": count, "share": interval.value, "low": interval.low, "high": interval.high}
