"""Calibration from end to end: look at images, choose ranges, correct biases."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from engine.errors import InputError, ModelError
from engine.quantize.bias import correct_biases
from engine.quantize.calibration import ActivationRange, Calibration
from engine.quantize.float_graph import FloatGraph
from engine.quantize.folding import read_float_graph
from engine.quantize.histogram import Histogram
from engine.quantize.observer import chunks, observe
from engine.quantize.placement import Placement, place
from engine.quantize.writer import write_quantised

Method = Literal["mse", "percentile", "max"]
Progress = Callable[[str, float], None]

_PERCENTILE = 99.995

# Normalised pixels are a few standard deviations at most; far beyond that, the metadata is wrong.
_LARGEST_PIXEL = 1e6

# Bias correction compares means, which settle with far fewer images than the tails that the ranges depend on.
_BIAS_IMAGES = 96


def quantize(
    model: str | os.PathLike[str] | onnx.ModelProto,
    images: Iterable[NDArray[np.float32]],
    out: str | os.PathLike[str],
    *,
    method: Method = "mse",
    bias_correction: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Quantise a float ONNX model to 8 bits: u8 activations, per-channel s8 weights, standard QDQ format.

    Args:
        model: float32 ONNX, a file or in memory.
        images: float32 arrays [n, C, H, W], preprocessed as for inference; 100 to 500 images in all do well.
        out: the QDQ file to write; it appears whole or not at all.
        method: how the range of an activation is chosen: "mse" (least squared error), "percentile" or "max".
        bias_correction: shift biases so that quantisation leaves the mean of each channel where it was.
        threads: threads of the calibration runs; None leaves the choice to ONNX Runtime.
        progress: called as `progress(stage, fraction)` with the fraction of the stage, as far as it is known.

    Returns:
        The calibration, which `write_quantised` turns into the same file again without any image.

    Raises:
        ModelError: the model cannot be read or quantised, or `out` cannot be written.
        InputError: there are no images, or they do not fit the model.
    """
    calibration = calibrate(
        model, images, method=method, bias_correction=bias_correction, threads=threads, progress=progress
    )
    write_quantised(model, calibration, out)
    return calibration


def calibrate(
    model: str | os.PathLike[str] | onnx.ModelProto,
    images: Iterable[NDArray[np.float32]],
    *,
    method: Method = "mse",
    bias_correction: bool = True,
    model_sha256: str = "",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Find the activation ranges and bias corrections of a float ONNX model.

    Args:
        model: as for `quantize`, like all arguments that are not explained here.
        images: as for `quantize`.
        method: as for `quantize`.
        bias_correction: as for `quantize`.
        model_sha256: kept in the result, so that a later build can tell whether the weights are still the same.
        threads: as for `quantize`.
        progress: as for `quantize`.

    Raises:
        ModelError: the model cannot be read or quantised.
        InputError: there are no images, or they do not fit the model.
    """
    report = progress or (lambda stage, fraction: None)
    graph = read_float_graph(model)
    placement = place(graph)
    sample = _Sample(_BIAS_IMAGES if bias_correction else 0)
    report("observing activations", 0.0)
    histograms = _observe_ranges(graph, placement, images, sample, threads)
    ranges = {name: _range(histogram, method) for name, histogram in histograms.items()}
    ranges.update(_input_ranges(graph, placement))
    ordered = {name: ranges[name] for name in placement.ranges_needed()}
    calibration = Calibration(ordered, {}, _described(method, bias_correction), sample.seen, model_sha256)
    # What is written down is rounded; the corrections have to be found for the numbers that will be read back.
    calibration = Calibration.from_json(calibration.to_json())
    if bias_correction:
        calibration = correct_biases(graph, placement, calibration, sample.images, threads, report)
    report("calibrated", 1.0)
    return calibration


def _observe_ranges(
    graph: FloatGraph,
    placement: Placement,
    images: Iterable[NDArray[np.float32]],
    sample: _Sample,
    threads: int | None,
) -> dict[str, Histogram]:
    source = graph.inputs[0].name
    inner = [name for name in placement.ranges_needed() if name != source]
    histograms = {name: Histogram() for name in placement.ranges_needed()}
    watched = graph.to_model(inner) if inner else graph.to_model()

    def passing() -> Iterable[NDArray[np.float32]]:
        for chunk in chunks(images):
            sample.offer(chunk)
            if source in histograms:
                histograms[source].add(chunk)
            yield chunk

    for values in observe(watched, passing(), threads):
        for name in inner:
            histograms[name].add(values[name])
    if not sample.seen:
        raise InputError("There are no calibration images. Give at least one; 100 to 500 do well.")
    return histograms


def _range(histogram: Histogram, method: Method) -> ActivationRange:
    if method == "mse":
        low, high = histogram.least_error_range()
    elif method == "percentile":
        low, high = histogram.percentile_range(_PERCENTILE)
    else:
        low, high = histogram.observed_range()
    if high - low <= 0:  # a tensor that was zero throughout: any grid represents it
        high = low + 1.0
    return ActivationRange(low, high)


def _input_ranges(graph: FloatGraph, placement: Placement) -> dict[str, ActivationRange]:
    """The exact range of normalised pixels where the model says how it normalises."""
    source = graph.inputs[0].name
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


def _described(method: Method, bias_correction: bool) -> str:
    shown = re.sub(r"^percentile$", f"percentile {_PERCENTILE}", method)
    return f"{shown}, bias correction" if bias_correction else shown


class _Sample:
    """A fixed-size uniform sample of a stream of images; the same stream always gives the same sample."""

    def __init__(self, size: int) -> None:
        self.seen = 0
        self.images: list[NDArray[np.float32]] = []
        self._size = size
        self._random = np.random.Generator(np.random.PCG64(0))

    def offer(self, chunk: NDArray[np.float32]) -> None:
        for index in range(len(chunk)):
            self.seen += 1
            if len(self.images) < self._size:
                self.images.append(chunk[index : index + 1].copy())
            elif self._size and (slot := int(self._random.integers(self.seen))) < self._size:
                self.images[slot] = chunk[index : index + 1].copy()
