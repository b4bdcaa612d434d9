"""Quantisation from end to end: look at images, choose ranges, correct biases, fall back until the gate holds."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from tessera.engine import _native
from tessera.engine.errors import InputError
from tessera.engine.graph.ir import Graph
from tessera.engine.quantize.attempts import cheaper, stricter
from tessera.engine.quantize.calibration import Calibration
from tessera.engine.quantize.measures import agreement, sqnr
from tessera.engine.quantize.network.layers import read_network
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.network.sessions import file_in_memory
from tessera.engine.quantize.observation.float_pass import Observation, observe_network
from tessera.engine.quantize.observation.ranges import Method, candidate_ranges, pixel_ranges
from tessera.engine.quantize.placement.chains import residual_chains
from tessera.engine.quantize.placement.floats import Fallback, Gain
from tessera.engine.quantize.placement.narrowing import narrow_layers
from tessera.engine.quantize.placement.values import Placement, place
from tessera.engine.quantize.report import Gate, Report, Round
from tessera.engine.quantize.rounding.activations import ActivationRange
from tessera.engine.quantize.settlement.choice import choose_ranges
from tessera.engine.quantize.settlement.equalisation import equalise
from tessera.engine.quantize.settlement.propagation import LayerNoise, Propagation, Settled
from tessera.engine.quantize.settlement.reconsideration import reconsider_ranges
from tessera.engine.quantize.settlement.sensitivity import Sensitivity, measure_sensitivities
from tessera.engine.quantize.settlement.sharing import share_ranges
from tessera.engine.quantize.settlement.tail import tail_values
from tessera.engine.quantize.writer import quantise_graph, write_quantised
from tessera.engine.rates import rates_here

Progress = Callable[[str, float], None]

# Images of the sample: biases and ranges are settled on the first, at most two in three, the gate is measured on the
# others.
_SAMPLE = 160
_SETTLED = 64
_SENSITIVE = 8
_CHOOSING = 16
_MOST_ROUNDS = 3

# Errors of tensors are not quite independent, and other images are a little worse than those looked at.
_MARGIN_DB = 1.35

_CHECK_BATCH = 16


def quantize(
    model: str | os.PathLike[str] | onnx.ModelProto,
    images: Iterable[NDArray[np.float32]],
    out: str | os.PathLike[str],
    *,
    method: Method = "auto",
    bias_correction: bool = True,
    gate: Gate | None = None,
    fallback: Fallback = "bf16",
    equalisation: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Quantise a float ONNX model to 8 bits: u8 activations, per-channel s8 weights, standard QDQ format.

    Args:
        model: float32 ONNX, a file or in memory.
        images: float32 arrays [n, C, H, W], preprocessed as for inference; 100 to 500 images in all do well.
        out: the QDQ file to write; it appears whole or not at all.
        method: how the range of an activation is chosen: "auto" compares all others by the error that they cause in
            the layers behind; "mse" (least squared error), "percentile", "entropy" (least divergence), "max".
        bias_correction: shift biases so that quantisation leaves the mean of each channel where it was.
        gate: what the result must reach; None for the default.
        fallback: what the tensors that hurt most, and the layers that read them, are kept in until the gate holds.
        equalisation: move scale between the channels of neighbouring layers where that lowers the measured error.
        threads: threads of the calibration runs; None leaves the choice to ONNX Runtime.
        progress: called as `progress(stage, fraction)` with the fraction of the stage, as far as it is known.

    Returns:
        The calibration, which `write_quantised` turns into the same file again without any image.

    Raises:
        ModelError: the model cannot be read or quantised, or `out` cannot be written.
        InputError: there are no images, or they do not fit the model.
    """
    calibration, _ = calibrate(
        model,
        images,
        method=method,
        bias_correction=bias_correction,
        gate=gate,
        fallback=fallback,
        equalisation=equalisation,
        threads=threads,
        progress=progress,
    )
    write_quantised(model, calibration, out)
    return calibration


def calibrate(
    model: str | os.PathLike[str] | onnx.ModelProto,
    images: Iterable[NDArray[np.float32]],
    *,
    method: Method = "auto",
    bias_correction: bool = True,
    gate: Gate | None = None,
    fallback: Fallback = "bf16",
    equalisation: bool = False,
    model_sha256: str = "",
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Calibration, Report]:
    """Find the numbers that quantise a float ONNX model, and tell how they were found.

    Args:
        model: as for `quantize`, like all arguments that are not explained here.
        images: as for `quantize`.
        method: as for `quantize`.
        bias_correction: as for `quantize`.
        gate: as for `quantize`.
        fallback: as for `quantize`.
        equalisation: as for `quantize`.
        model_sha256: kept in the result, so that a later build can tell whether the weights are still the same.
        threads: as for `quantize`.
        progress: as for `quantize`.

    Returns:
        The calibration and the report. A gate that is not met is told in the report; it is no error.

    Raises:
        ModelError: the model cannot be read or quantised.
        InputError: there are no images, or they do not fit the model.
    """
    started = time.perf_counter()
    graph = read_network(model)
    del model  # as large as the graph
    _native.trim_heap()
    quantiser = _Quantiser(graph, method, bias_correction, fallback, threads, progress)
    calibration, report = quantiser.run(images, gate or Gate(), equalisation, model_sha256, started)
    quantiser.report("calibrated", 1.0)
    return replace(calibration, verdict=report.verdict), report


class _Quantiser:
    def __init__(
        self,
        graph: Graph,
        method: Method,
        bias_correction: bool,
        fallback: Fallback,
        threads: int | None,
        progress: Progress | None,
    ) -> None:
        self._graph = graph
        self._method = method
        self._bias_correction = bias_correction
        self._fallback = fallback
        self._threads = threads
        self._rates = rates_here()
        self.report = progress or (lambda stage, fraction: None)

    def run(
        self, images: Iterable[NDArray[np.float32]], gate: Gate, equalisation: bool, sha256: str, started: float
    ) -> tuple[Calibration, Report]:
        scales: dict[str, tuple[float, ...]] = {}
        if equalisation:
            images = list(images)
            scales = equalise(self._graph, place(self._graph), images, self._threads, self.report)
        placement = place(self._graph)
        self.report("observing activations", 0.0)
        seen = observe_network(self._graph, placement, images, sample=_SAMPLE, threads=self._threads)
        candidates = {name: candidate_ranges(seen.histograms[name], self._method) for name in seen.histograms}
        candidates.update({name: {"pixels": found} for name, found in pixel_ranges(self._graph, placement).items()})
        runners = NodeRunners(self._graph, self._threads)
        limits = narrow_layers(runners)
        _native.trim_heap()
        ranges, choices = choose_ranges(runners, candidates, seen.images[: min(_CHOOSING, _settled(seen))], self.report)
        _native.trim_heap()
        some = seen.images[: min(_SENSITIVE, _settled(seen))]
        tails = tail_values(runners, {name: values[: _settled(seen)] for name, values in seen.vectors.items()})

        def measure(ranges: Mapping[str, ActivationRange]) -> list[Sensitivity]:
            return measure_sensitivities(runners, placement, ranges, limits, some, self.report, tails)

        sensitivities = measure(ranges)
        ranges, choices, sensitivities = reconsider_ranges(measure, candidates, ranges, choices, sensitivities)
        noise_limit = _digits(10 ** (-(gate.sqnr + _MARGIN_DB) / 10))
        chains = residual_chains(self._graph, placement)
        ranges, choices, sensitivities = share_ranges(measure, chains, ranges, choices, sensitivities, noise_limit)
        if self._fallback == "none":
            sensitivities = []
        _native.trim_heap()
        gains = {entry.tensor: Gain(entry.noise, entry.macs, entry.elements, entry.rounded) for entry in sensitivities}
        calibration = self._calibration(ranges, gains, noise_limit, scales, limits, seen.seen, sha256)

        def settle(calibration: Calibration) -> tuple[Calibration, list[LayerNoise]]:
            settled = self._settle(runners, placement, calibration, seen)
            return replace(calibration, bias_corrections=settled.corrections), settled.layers

        calibration, layers = settle(calibration)
        rounds: list[Round] = []
        checked = len(seen.images) - _settled(seen)
        while True:
            rounds.append(self._check(calibration, seen))
            met = _meets(rounds[-1], gate, checked)
            if met or len(rounds) == _MOST_ROUNDS:
                break
            more = self._stricter(calibration, rounds[-1], gate)
            if more is calibration and not limits:
                break
            if more is calibration or len(rounds) == _MOST_ROUNDS - 1:
                limits = {}  # a little speed is worth less than the gate
                more, layers = settle(replace(more, weight_limits=limits))
            calibration = more
        if met:
            calibration = cheaper(
                calibration,
                rounds,
                gate,
                self._rates,
                check=lambda choice: self._check(choice, seen),
                meets=lambda attempt: _meets(attempt, gate, checked),
            )
        report = Report(
            images=seen.seen,
            checked=checked,
            gate=gate,
            met=met,
            rounds=rounds,
            choices=choices,
            layers=layers,
            sensitivities=sensitivities,
            milliseconds=calibration.costs(self._rates),
            rates=self._rates,
            equalised=list(scales),
            seconds=time.perf_counter() - started,
        )
        return calibration, report

    def _settle(
        self, runners: NodeRunners, placement: Placement, calibration: Calibration, seen: Observation
    ) -> Settled:
        count = _settled(seen)
        propagation = Propagation(
            runners,
            placement,
            calibration.floats,
            calibration.ranges,
            {name: values[:count].mean(axis=0, dtype=np.float64) for name, values in seen.means.items()},
            calibration.weight_limits,
            correct=self._bias_correction,
            report=self.report,
        )
        return propagation.run(seen.images[:count])

    def _calibration(
        self,
        ranges: dict[str, ActivationRange],
        gains: dict[str, Gain],
        noise_limit: float,
        scales: dict[str, tuple[float, ...]],
        limits: dict[str, int],
        images: int,
        sha256: str,
    ) -> Calibration:
        """All but the biases, with as many tensors in floating point as are predicted to be needed."""
        method = re.sub("^auto$", "by measured error", self._method)
        return Calibration(
            ranges=ranges,
            method=f"{method}, bias correction" if self._bias_correction else method,
            images=images,
            model_sha256=sha256,
            float_precision="bf16" if self._fallback == "bf16" else "fp32",
            channel_scales=scales,
            weight_limits=limits,
            gains=gains,
            noise_limit=noise_limit if gains else 0.0,
        ).for_cpu(self._rates)

    def _stricter(self, calibration: Calibration, attempt: Round, gate: Gate) -> Calibration:
        """With more tensors in floating point after an attempt that failed; the same one where there are no more."""
        more = stricter(calibration, attempt, gate, self._rates)
        if more.floats == calibration.floats or not place(self._graph, more.floats).roots:
            return calibration
        return more

    def _check(self, calibration: Calibration, seen: Observation) -> Round:
        """Run what would be written, on our own engine, on images that nothing was fitted to."""
        images, wanted = seen.images[_settled(seen) :], seen.logits[_settled(seen) :]
        if not len(images) or wanted.ndim != 2:
            return Round(calibration.floats, None, None)
        from tessera.engine.loading import load  # here, because sessions are no business of a build from a calibration

        self.report("checking", 0.0)
        model = quantise_graph(self._graph, place(self._graph, calibration.floats), calibration)
        with file_in_memory(model.SerializeToString()) as path, load(path, threads=self._threads) as session:
            parts = []
            for start in range(0, len(images), _CHECK_BATCH):
                self.report("checking", start / len(images))
                parts.append(session.run(images[start : start + _CHECK_BATCH]))
        got = np.concatenate(parts)
        if got.shape != wanted.shape:
            raise InputError(f"The quantised network gives shape {got.shape}, the float network {wanted.shape}.")
        return Round(calibration.floats, sqnr(wanted, got), agreement(wanted, got))


def _digits(noise: float) -> float:
    """As many digits as a calibration file keeps."""
    return float(f"{noise:.6g}")


def _settled(seen: Observation) -> int:
    return min(_SETTLED, max(1, 2 * len(seen.images) // 3))


def _meets(attempt: Round, gate: Gate, images: int) -> bool:
    if attempt.sqnr is None or attempt.agreement is None:
        return True
    return gate.is_met(attempt.sqnr, attempt.agreement, images)
