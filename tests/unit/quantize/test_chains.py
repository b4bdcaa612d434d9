"""Values that are added one after another share a scale where that costs little: then kernels add them in 16 bits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tessera.engine.quantize.network.layers import read_network
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.pipeline import calibrate
from tessera.engine.quantize.placement.chains import residual_chains
from tessera.engine.quantize.placement.values import place
from tessera.engine.quantize.report import Gate
from tessera.engine.quantize.rounding.activations import ActivationRange
from tessera.engine.quantize.settlement.choice import TensorChoice
from tessera.engine.quantize.settlement.sensitivity import Sensitivity, measure_sensitivities
from tessera.engine.quantize.settlement.sharing import share_ranges
from tests.unit.models.tiny import tiny_images, tiny_model

CHAINS = [["layer1.0.add.relu", "layer1.1.add.relu", "layer1.2.add.relu"], ["layer3.0.add.relu", "layer3.1.add.relu"]]


def test_block_outputs_of_a_stage_are_a_chain_and_projections_are_not() -> None:
    """What a projection gives may be negative, what leaves a block behind its ReLU may not."""
    graph = read_network(tiny_model(blocks=(3, 1, 2, 1)))
    assert residual_chains(graph, place(graph)) == CHAINS


def test_a_block_output_in_floating_point_ends_a_chain() -> None:
    graph = read_network(tiny_model(blocks=(3, 1, 2, 1)))
    assert residual_chains(graph, place(graph, ["layer1.1.add.relu"])) == CHAINS[1:]


@pytest.mark.parametrize("allowed", [True, False])
def test_a_chain_shares_its_widest_range_unless_that_costs_too_much(allowed: bool) -> None:
    """A range that is a hundred times as wide leaves two or three of 255 steps."""
    graph, images = read_network(tiny_model(blocks=(3, 1, 2, 1))), tiny_images(4)
    placement, runners = place(graph), NodeRunners(graph, 2)
    ranges = {name: ActivationRange(-100.0, 100.0) for name in placement.ranges_needed()}
    ranges.update({name: ActivationRange(0.0, 200.0) for chain in CHAINS for name in chain})
    ranges[CHAINS[0][1]] = ActivationRange(0.0, 20000.0)
    ranges[CHAINS[1][0]] = ActivationRange(0.0, 210.0)
    choices = [TensorChoice(name, "mse", {}) for name in ranges]

    def measure(ranges: Mapping[str, ActivationRange]) -> list[Sensitivity]:
        return measure_sensitivities(runners, placement, ranges, {}, images, lambda stage, fraction: None)

    before = measure(ranges)
    limit = 1e6 if allowed else sum(entry.noise for entry in before)
    shared, chosen, after = share_ranges(measure, CHAINS, ranges, choices, before, limit)
    first, second = ({shared[name].high for name in chain} for chain in CHAINS)
    assert second == {210.0}
    assert first == ({20000.0} if allowed else {200.0, 20000.0})
    assert {choice.name: choice.method for choice in chosen}[CHAINS[1][1]] == "sharing"
    assert all(shared[name] == ranges[name] for name in ranges if ".add" not in name)
    assert {entry.tensor: entry.noise for entry in after} == {entry.tensor: entry.noise for entry in measure(shared)}


def test_a_calibration_shares_scales_along_chains() -> None:
    model = tiny_model(blocks=(3, 1, 1, 1))
    calibration, _ = calibrate(model, [tiny_images(12)], gate=Gate(sqnr=-20), fallback="none")
    assert len({calibration.ranges[name] for name in CHAINS[0]}) == 1
