"""One range for the values of a chain of residual sums, where that costs next to nothing.

A residual of the sum's scale is added to it in 16 bits, after rounding; any other is converted and multiplied first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tessera.engine.quantize.rounding.activations import ActivationRange
from tessera.engine.quantize.settlement.choice import TensorChoice
from tessera.engine.quantize.settlement.sensitivity import Measure, Sensitivity

# A chain may cost so much of the noise that is allowed: 0.09 dB.
_MOST = 0.02


def share_ranges(
    measure: Measure,
    chains: Sequence[Sequence[str]],
    ranges: Mapping[str, ActivationRange],
    choices: Sequence[TensorChoice],
    sensitivities: Sequence[Sensitivity],
    noise_limit: float,
) -> tuple[dict[str, ActivationRange], list[TensorChoice], list[Sensitivity]]:
    """Give the values of each chain the widest of their ranges, unless that costs too much at the network's end.

    Args:
        measure: what eight bits of tensors cost at the network's end.
        chains: as `residual_chains` finds them.
        ranges: those chosen so far.
        choices: how they were chosen.
        sensitivities: what they cost at the network's end.
        noise_limit: noise power over signal power that is allowed of all tensors together.

    Returns:
        Ranges, choices and sensitivities, with what is shared.
    """
    widest: dict[str, str] = {}
    for chain in chains:
        widest.update(dict.fromkeys(chain, max(chain, key=lambda tensor: ranges[tensor].high)))
    tried = {tensor: ranges[first] for tensor, first in widest.items() if ranges[tensor] != ranges[first]}
    if not tried:
        return dict(ranges), list(choices), list(sensitivities)
    before, after = ({entry.tensor: entry for entry in entries} for entries in (sensitivities, measure(tried)))
    shared: set[str] = set()
    for chain in chains:
        changed = [tensor for tensor in chain if tensor in tried]
        if sum(after[tensor].noise - before[tensor].noise for tensor in changed) <= _MOST * noise_limit:
            shared.update(changed)
    costs = [after[entry.tensor] if entry.tensor in shared else entry for entry in sensitivities]
    return (
        {tensor: tried[tensor] if tensor in shared else kept for tensor, kept in ranges.items()},
        [replace(choice, method="sharing") if choice.name in shared else choice for choice in choices],
        sorted(costs, key=lambda entry: -entry.noise),
    )
