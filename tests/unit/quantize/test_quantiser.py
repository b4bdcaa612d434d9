"""Scales of weights, equalisation, sensitivity, and falling back to floating point until a gate holds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tessera import engine
from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.writer import to_onnx
from tessera.engine.quantize import Calibration, Gate, calibrate, quantised_model
from tessera.engine.quantize.measures import sqnr
from tessera.engine.quantize.network.layers import read_network
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.observation.float_pass import observe_network
from tessera.engine.quantize.observation.histogram import Histogram
from tessera.engine.quantize.observation.ranges import candidate_ranges
from tessera.engine.quantize.placement.floats import Gain, choose_floats
from tessera.engine.quantize.placement.values import place
from tessera.engine.quantize.rounding.activations import ActivationRange
from tessera.engine.quantize.rounding.digits import rounded_range
from tessera.engine.quantize.rounding.weights import least_error_scales, quantise_weights
from tessera.engine.quantize.settlement.choice import TensorChoice
from tessera.engine.quantize.settlement.equalisation import apply_scales, tied_tensors
from tessera.engine.quantize.settlement.reconsideration import reconsider_ranges
from tessera.engine.quantize.settlement.sensitivity import Sensitivity, decibels, measure_sensitivities
from tessera.engine.quantize.settlement.tail import tail_values
from tessera.engine.rates import TABLE, Rates, rates_here
from tests.unit.models.tiny import tiny_images, tiny_model
from tests.unit.quantize.networks import constants, nodes, producers, run, with_an_outlier


@given(
    integers=hnp.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(30, 60)), elements=st.integers(-127, 127)),
    scale=st.floats(1e-6, 1e3),
)
def test_weights_that_come_from_an_eight_bit_grid_lose_nothing(integers: np.ndarray, scale: float) -> None:
    integers[:, 0] = 100  # the largest weight need not be at the end of the grid that the weights come from
    integers = np.clip(integers, -100, 100)
    weight = integers * scale
    stored = quantise_weights(weight, np.zeros(len(weight)), np.float32(1.0))
    assert stored.real() == pytest.approx(weight, rel=1e-5, abs=scale * 1e-4)


@given(rows=hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 400)), elements=st.floats(-10, 10)))
def test_chosen_scales_are_never_worse_than_the_plain_ones(rows: np.ndarray) -> None:
    def error(scales: np.ndarray) -> np.ndarray:
        safe = np.where(scales > 0, scales, 1.0)[:, None]
        return np.asarray(((np.clip(np.rint(rows / safe), -127, 127) * safe - rows) ** 2).sum(axis=1))

    plain = np.abs(rows).max(axis=1) / 127
    if rows.shape[1] <= 192:  # longer rows are judged by a part of their weights
        assert (error(least_error_scales(rows)) <= error(plain) * 1.001 + 1e-12).all()


@given(values=hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e4, 1e4, width=32)))
def test_entropy_range_holds_zero_and_lies_within_what_was_seen(values: np.ndarray) -> None:
    histogram = Histogram()
    histogram.add(values)
    low, high = histogram.observed_range()
    found = histogram.least_divergence_range()
    assert low <= found[0] <= 0 <= found[1] <= high


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_equalising_changes_no_result(seed: int) -> None:
    random = np.random.default_rng(seed)
    images = tiny_images(4)
    graph = read_network(tiny_model())
    expected = run(to_onnx(graph), images)
    channels = {node.output: len(graph.constants[node.inputs[1]]) for node in graph.nodes if node.op == "Conv"}
    groups = [group for group in tied_tensors(graph) if group & set(channels)]
    assert groups
    scales = {
        next(iter(sorted(group & set(channels)))): random.uniform(
            0.1, 4.0, channels[next(iter(sorted(group & set(channels))))]
        )
        for group in groups
    }
    before = {name: value.copy() for name, value in graph.constants.items()}
    apply_scales(graph, scales)
    assert any(not np.array_equal(before[name], graph.constants[name]) for name in before)
    assert run(to_onnx(graph), images) == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max()))


def test_scales_of_another_model_are_refused() -> None:
    calibration, _ = calibrate(tiny_model(), [tiny_images(4)], fallback="none", bias_correction=False)
    name = next(iter(calibration.ranges))
    for scales in ({name: (1.0, 2.0)}, {"layer1.0.bn1.relu": (1.0, 2.0)}):
        with pytest.raises(ModelError, match="does not fit this model"):
            quantised_model(tiny_model(), Calibration(calibration.ranges, channel_scales=scales))


@pytest.mark.parametrize("fallback", ["fp32", "bf16"])
def test_what_eight_bits_ruin_stays_in_floating_point_until_the_gate_holds(fallback: str, tmp_path: Path) -> None:
    model, images = with_an_outlier(), tiny_images(90)
    gate = Gate(sqnr=22.0, agreement=0.9)
    _, alone = calibrate(model, [images], fallback="none", gate=gate)
    assert not alone.met
    calibration, report = calibrate(model, [images], fallback=fallback, gate=gate)  # type: ignore[arg-type]
    assert report.met
    assert report.rounds[-1].sqnr is not None
    assert report.rounds[-1].sqnr >= gate.sqnr
    # The worst is among what was kept, and by far not everything was.
    assert report.sensitivities[0].tensor in calibration.floats
    assert len(calibration.floats) < len(calibration.ranges) / 2
    quantised = quantised_model(model, Calibration.from_json(calibration.to_json()))
    assert {entry.key: entry.value for entry in quantised.metadata_props}["tessera.float_precision"] == fallback
    made = producers(quantised)
    kept = {layer for entry in report.floats for layer in entry.layers}
    for layer in nodes(quantised, "Conv") + nodes(quantised, "Gemm"):
        in_integers = layer.input[1] in made and made[layer.input[1]].op_type == "DequantizeLinear"
        assert in_integers == (layer.output[0] not in kept)
        assert in_integers or constants(quantised)[layer.input[1]].dtype == np.float32
    (tmp_path / "mixed.onnx").write_bytes(quantised.SerializeToString())
    unseen = tiny_images(32, seed=9)
    with engine.load(tmp_path / "mixed.onnx", backend="cpu") as session:
        assert sqnr(run(model, unseen), session.run(unseen)) >= gate.sqnr - 2


def test_sensitivities_add_up_the_noise_of_all_images() -> None:
    """What exceeds a range may be on any of them."""
    graph = read_network(tiny_model())
    placement, runners = place(graph), NodeRunners(graph, 2)
    ranges = {name: ActivationRange(-0.5, 0.5) for name in placement.ranges_needed()}
    images = np.concatenate([tiny_images(2) / 10, tiny_images(2, seed=5)])  # the first two stay within the range

    def noise(some: np.ndarray) -> dict[str, float]:
        found = measure_sensitivities(runners, placement, ranges, {}, some, lambda stage, fraction: None)
        return {entry.tensor: entry.noise for entry in found}

    signals = [float(np.square(run(tiny_model(), some)).sum()) for some in (images[:2], images[2:])]
    parts, together = [noise(images[:2]), noise(images[2:])], noise(images)
    assert parts[0] != parts[1]
    for tensor in together:
        power = sum(part[tensor] * signal for part, signal in zip(parts, signals, strict=True))
        assert together[tensor] == pytest.approx(power / sum(signals), rel=1e-3)


def test_a_range_that_costs_less_at_the_end_of_the_network_takes_the_place_of_one_that_seemed_as_good() -> None:
    graph, images = read_network(tiny_model()), tiny_images(8)
    placement, runners = place(graph), NodeRunners(graph, 2)
    observed = observe_network(graph, placement, [images], sample=8, threads=2)
    wide = {name: candidate_ranges(observed.histograms[name], "max")["max"] for name in observed.histograms}
    cut = {name: ActivationRange(found.low / 4, found.high / 4) for name, found in wide.items()}
    candidates = {name: {"mse": cut[name], "max": wide[name]} for name in wide}
    choices = [TensorChoice(name, "mse", {"mse": 1.0, "max": 1.1}) for name in wide]

    def measured(ranges: Mapping[str, ActivationRange]) -> list[Sensitivity]:
        return measure_sensitivities(runners, placement, ranges, {}, images, lambda stage, fraction: None)

    before = {entry.tensor: entry.noise for entry in measured(cut)}
    ranges, chosen, after = reconsider_ranges(measured, candidates, cut, choices, measured(cut))
    assert all(entry.noise <= before[entry.tensor] for entry in after)
    assert [entry.noise for entry in after] == sorted((entry.noise for entry in measured(ranges)), reverse=True)
    methods = {choice.name: choice.method for choice in chosen}
    assert set(methods.values()) == {"mse", "max"}, "some are better wide; what costs nothing stays as it was"
    for name, method in methods.items():
        assert ranges[name] == (cut[name] if method == "mse" else rounded_range(wide[name]))


def test_what_leads_to_the_answers_alone_is_judged_by_all_images_at_hand() -> None:
    """A vector in front of the last layer is small; what only one image in many shows of it still counts."""
    graph, images = read_network(tiny_model()), tiny_images(12)
    placement, runners = place(graph), NodeRunners(graph, 2)
    seen = observe_network(graph, placement, [images], sample=12, threads=2)
    tails = tail_values(runners, seen.vectors)
    name = "avgpool"
    assert tails[name][name].shape[0] == 12
    np.testing.assert_allclose(tails[name][graph.outputs[0]], seen.logits, rtol=1e-4, atol=1e-4)
    ranges = {tensor: candidate_ranges(found, "max")["max"] for tensor, found in seen.histograms.items()}
    order = np.argsort(seen.vectors[name].reshape(12, -1).max(axis=1))
    few = seen.images[order[:2]]
    ranges[name] = ActivationRange(0.0, float(seen.vectors[name][order[:2]].max()))  # cuts off what the others have

    def noise(**more: dict[str, dict[str, np.ndarray]]) -> float:
        found = measure_sensitivities(runners, placement, ranges, {}, few, lambda stage, fraction: None, **more)
        return next(entry.noise for entry in found if entry.tensor == name)

    assert noise(tails=tails) > 3 * noise()


def test_a_vector_that_others_join_on_the_way_is_no_tail() -> None:
    """Squeeze-and-excitation multiplies a map by such a vector, and the map takes more than the vector."""
    nodes = [
        Node("GlobalAveragePool", "mean", ["map"], ["vector"]),
        Node("Mul", "product", ["map", "vector"], ["answers"]),
    ]
    graph = Graph("scaled", nodes, ["map"], ["answers"], constants={}, values={}, metadata={}, opset=17)
    assert tail_values(NodeRunners(graph, 1), {"vector": np.ones((1, 3, 1, 1), np.float32)}) == {}


def test_int8_asks_for_a_quantised_file_and_keeps_the_types_of_its_float_layers(tmp_path: Path) -> None:
    model, images, path = tiny_model(), tiny_images(30), tmp_path / "mixed.onnx"
    calibration, _ = calibrate(model, [images], fallback="none")
    ranges = {name: values for name, values in calibration.ranges.items() if name != "layer1.0.bn1.relu"}
    kept = dataclasses.replace(calibration, ranges=ranges, floats=("layer1.0.bn1.relu",), float_precision="bf16")
    path.write_bytes(quantised_model(model, kept).SerializeToString())
    answers = {}
    for precision in ("auto", "int8", "fp32"):
        with engine.load(path, backend="cpu", precision=precision) as session:  # type: ignore[arg-type]
            answers[precision] = session.run(images)
    np.testing.assert_array_equal(answers["int8"], answers["auto"])
    # A CPU whose bf16 is slower than its fp32 runs the file's bf16 layers in fp32.
    assert np.array_equal(answers["fp32"], answers["auto"]) == (rates_here().faster_float == "fp32")


BY_MACS = Rates(int8=100, bf16=50, fp32=25, origin="made up")
GAINS = {
    "cheap": Gain(4e-3, 10**6, 0, 0),
    "dear": Gain(4e-3, 3 * 10**8, 0, 0),
    "quiet": Gain(1e-5, 10**7, 0, 0),
}


def test_the_cheapest_tensors_are_kept_that_bring_the_noise_below_the_limit() -> None:
    def chosen(limit: float, rates: Rates = BY_MACS) -> list[str]:
        return choose_floats(GAINS, limit, rates, "bf16")

    assert chosen(1.0) == []
    assert chosen(4.5e-3) == ["cheap"]
    assert set(chosen(1e-4)) == {"cheap", "dear"}
    assert decibels(4e-3) == pytest.approx(-10 * math.log10(4e-3))


def test_what_a_cpu_is_slow_at_is_chosen_less() -> None:
    """One tensor takes multiplications, the other only traffic: which is cheaper is a question of the CPU."""
    gains = {"products": Gain(1e-3, 10**8, 0, 0), "traffic": Gain(1e-3, 0, 3 * 10**7, 0)}
    slow_floats = Rates(int8=3600, bf16=58, fp32=121, origin="made up")
    fast_floats = Rates(int8=3600, bf16=1800, fp32=121, origin="made up")
    assert choose_floats(gains, 1.5e-3, slow_floats, "bf16") == ["products"]
    assert choose_floats(gains, 1.5e-3, fast_floats, "bf16") == ["products"]
    gains["products"] = Gain(1e-3, 10**9, 0, 0)
    assert choose_floats(gains, 1.5e-3, slow_floats, "bf16") == ["traffic"]
    assert choose_floats(gains, 1.5e-3, fast_floats, "bf16") == ["products"]
    assert choose_floats(gains, 1.5e-3, fast_floats, "fp32") == ["traffic"]


@given(
    rows=st.dictionaries(
        st.text(max_size=4),
        st.tuples(st.floats(0, 1e-2), st.integers(0, 10**9), st.integers(0, 10**7), st.integers(0, 10**7)),
        max_size=12,
    ),
    limit=st.floats(0, 1e-2),
    level=st.sampled_from(sorted(TABLE)),
)
def test_the_choice_keeps_the_limit_and_nothing_that_it_does_not_need(
    rows: dict[str, tuple[float, int, int, int]], limit: float, level: str
) -> None:
    gains = {name: Gain(*row) for name, row in rows.items()}
    chosen = choose_floats(gains, limit, TABLE[level], "bf16")

    def left(*back: str) -> float:
        return math.fsum(gain.noise for name, gain in gains.items() if name not in chosen or name in back)

    assert left() <= limit
    assert all(left(name) > limit for name in chosen)
    assert choose_floats(dict(gains), limit, TABLE[level], "bf16") == chosen


def test_one_file_serves_every_class_of_cpu(tmp_path: Path) -> None:
    """Costs decide which tensors leave eight bits; each choice builds, and is as good as the gate asked."""
    model, images = with_an_outlier(), tiny_images(90)
    gate = Gate(sqnr=22.0, agreement=0.9)
    made, report = calibrate(model, [images], gate=gate)
    assert report.met
    calibration = Calibration.from_json(made.to_json())
    assert calibration == made
    assert calibration.for_cpu(rates_here()) == made
    unseen = tiny_images(32, seed=9)
    expected = run(model, unseen)
    choices = set()
    for name, rates in TABLE.items():
        here = calibration.for_cpu(rates)
        if here.floats in choices:
            continue
        choices.add(here.floats)
        assert set(here.costs(rates)) == set(here.floats), name
        assert sum(calibration.gains[kept].noise for kept in set(calibration.gains) - set(here.floats)) <= (
            calibration.noise_limit
        )
        (tmp_path / "mixed.onnx").write_bytes(quantised_model(model, here).SerializeToString())
        with engine.load(tmp_path / "mixed.onnx", backend="cpu") as session:
            assert sqnr(expected, session.run(unseen)) >= gate.sqnr - 2, name


@pytest.mark.parametrize(
    "change",
    [{"floats": "conv1"}, {"floats": [1]}, {"float_precision": "fp8"}, {"channel_scales": {"a": [1.0, 0.0]}}],
)
def test_impossible_calibrations_are_refused(change: dict[str, object]) -> None:
    calibration, _ = calibrate(tiny_model(), [tiny_images(4)], fallback="none", bias_correction=False)
    document = {**json.loads(calibration.to_json()), **change}
    with pytest.raises(ModelError, match="Calibrate the model again"):
        Calibration.from_json(json.dumps(document))


def test_equalisation_is_kept_only_where_it_helps_and_is_written_down() -> None:
    model, images = with_an_outlier(), tiny_images(24)
    calibration, report = calibrate(model, [images], fallback="none", equalisation=True)
    assert report.equalised
    assert "layer3.0.bn1.relu" in calibration.channel_scales
    plain, _ = calibrate(model, [images], fallback="none")
    expected = run(model, images)
    found = [run(quantised_model(model, numbers), images) for numbers in (calibration, plain)]
    assert sqnr(expected, found[0]) > sqnr(expected, found[1]) + 3
