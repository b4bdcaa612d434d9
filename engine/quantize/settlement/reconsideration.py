"""The ranges that matter, compared once more: by the noise at the network's end.

A range that cuts off rare large values and one that takes them in may cost alike behind the layers that read a tensor.
At the network's end they do not: rounding averages out, while what is cut off made an image's best class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tessera.engine.quantize.rounding.activations import ActivationRange
from tessera.engine.quantize.rounding.digits import rounded_range
from tessera.engine.quantize.settlement.choice import TensorChoice
from tessera.engine.quantize.settlement.sensitivity import Measure, Sensitivity

# A tensor with less than this share of all noise is not worth the time.
_MATTERS = 0.01
# Nor is a candidate whose error behind the tensor is so many times the chosen one's,
_HOPELESS = 10.0
# or whose range is so near to the chosen one's.
_ALIKE = 0.05


def reconsider_ranges(
    measure: Measure,
    candidates: Mapping[str, Mapping[str, ActivationRange]],
    ranges: dict[str, ActivationRange],
    choices: Sequence[TensorChoice],
    sensitivities: Sequence[Sensitivity],
) -> tuple[dict[str, ActivationRange], list[TensorChoice], list[Sensitivity]]:
    """Try the other candidates of the tensors that cost most, and keep what costs less.

    Args:
        measure: what eight bits of tensors cost at the network's end.
        candidates: by tensor, the ranges to choose from, by method.
        ranges: those chosen so far.
        choices: how they were chosen.
        sensitivities: what they cost at the network's end.

    Returns:
        Ranges, choices and sensitivities, with what was found.
    """
    best = {entry.tensor: entry for entry in sensitivities}
    chosen = {choice.name: choice for choice in choices}
    ranges = dict(ranges)
    least = _MATTERS * sum(entry.noise for entry in sensitivities)
    open_trials = {
        entry.tensor: list(_trials(chosen[entry.tensor], candidates[entry.tensor]))
        for entry in sensitivities
        if entry.noise >= least and entry.tensor in chosen
    }
    while any(open_trials.values()):
        trials = {tensor: methods.pop(0) for tensor, methods in open_trials.items() if methods}
        tried = {tensor: rounded_range(candidates[tensor][method]) for tensor, method in trials.items()}
        for entry in measure(tried):
            if entry.noise < best[entry.tensor].noise:
                best[entry.tensor] = entry
                ranges[entry.tensor] = tried[entry.tensor]
                chosen[entry.tensor] = replace(chosen[entry.tensor], method=trials[entry.tensor])
    return ranges, list(chosen.values()), sorted(best.values(), key=lambda entry: -entry.noise)


def _trials(choice: TensorChoice, candidates: Mapping[str, ActivationRange]) -> Iterator[str]:
    """The methods worth trying, the likeliest first; of ranges that are alike, one."""
    seen = [candidates[choice.method]]
    for method, error in sorted(choice.errors.items(), key=lambda found: found[1]):
        candidate = candidates[method]
        if error <= _HOPELESS * choice.errors[choice.method] and not any(_alike(candidate, other) for other in seen):
            seen.append(candidate)
            yield method


def _alike(one: ActivationRange, other: ActivationRange) -> bool:
    span = max(one.high - one.low, other.high - other.low)
    return max(abs(one.low - other.low), abs(one.high - other.high)) <= _ALIKE * span
