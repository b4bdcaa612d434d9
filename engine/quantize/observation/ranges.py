"""Candidates for the range of an activation, by method, from the histogram of its values."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph
from tessera.engine.quantize.observation.histogram import Histogram
from tessera.engine.quantize.placement.values import Placement
from tessera.engine.quantize.rounding.activations import ActivationRange

Method = Literal["auto", "mse", "percentile", "entropy", "max"]

# "percentile" alone is the first; "auto" compares both.
_PERCENTILES = (99.99, 99.999)

# Normalised pixels are a few standard deviations at most; far beyond that, the metadata is wrong.
_LARGEST_PIXEL = 1e6


def candidate_ranges(histogram: Histogram, method: Method) -> dict[str, ActivationRange]:
    """The ranges to choose from.

    Args:
        histogram: the values seen.
        method: one method for one candidate, or "auto" for one of each kind.

    Returns:
        By name: "mse" (least squared error), "percentile ...", "entropy" (least divergence), "max" (all values seen).
    """
    found: dict[str, tuple[float, float]] = {}
    if method in ("auto", "mse"):
        found["mse"] = histogram.least_error_range()
    if method in ("auto", "percentile"):
        for percentile in _PERCENTILES if method == "auto" else _PERCENTILES[:1]:
            found[f"percentile {percentile}"] = histogram.percentile_range(percentile)
    if method in ("auto", "entropy"):
        found["entropy"] = histogram.least_divergence_range()
    if method in ("auto", "max"):
        found["max"] = histogram.observed_range()
    return {name: _usable(low, high) for name, (low, high) in found.items()}


def pixel_ranges(graph: Graph, placement: Placement) -> dict[str, ActivationRange]:
    """The exact range of normalised pixels, by the name of the graph's input, where the model says how it normalises.

    Raises:
        ModelError: what the model says of its normalisation makes no sense.
    """
    source = graph.inputs[0]
    if source not in placement.ranges_needed():
        return {}
    if not {"tessera.mean", "tessera.std"} <= set(graph.metadata):
        return {}
    try:
        mean, std = (np.array(json.loads(graph.metadata[key]), np.float64) for key in ("tessera.mean", "tessera.std"))
        low, high = float(((0 - mean) / std).min()), float(((1 - mean) / std).max())
    except (ValueError, TypeError, FloatingPointError, ZeroDivisionError) as error:
        raise ModelError(f"The model's metadata tessera.mean or tessera.std is damaged: {error}.") from error
    if not (std > 0).all() or not low < high < _LARGEST_PIXEL:
        raise ModelError("The model's metadata tessera.mean or tessera.std is damaged: std must be above zero.")
    return {source: ActivationRange(min(low, 0.0), max(high, 0.0))}


def _usable(low: float, high: float) -> ActivationRange:
    # A tensor that was zero throughout: any grid represents it.
    return ActivationRange(low, high if high - low > 0 else low + 1.0)
