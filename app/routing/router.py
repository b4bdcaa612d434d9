"""One decision for every protocol: which variant answers a request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tessera.app.routing.split import Split, experiment_key
from tessera.app.routing.variants import choose_variant

BASELINE = "baseline"

# How a request came to its variant, by precedence: its own choice (header, or the model's name in the Open Inference
# Protocol); the tripped guard; the split; the default.
EXPLICIT = "explicit"
REASONS = (EXPLICIT, "guard", "split", "default")


class Decision(NamedTuple):
    """Who answers a request, and which of `REASONS` decided."""

    variant: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        default: Variant of requests that nothing else decides.
        shares: Weight per variant, or None for no split.
        salt: Name of the experiment in the hash of keys.
        shadow_share: Share of requests that another variant runs too, 0 to 1.
    """

    default: str
    shares: dict[str, float] | None = None
    salt: str = ""
    shadow_share: float = 0.0


class Router:
    """Decides by request, plan and guard; holds no state, so every process decides the same.

    Args:
        plan: What was asked for.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._split = Split(plan.shares, plan.salt) if plan.shares else None

    def route(
        self,
        variant_values: Sequence[str],
        key_values: Sequence[str],
        request_id: str,
        *,
        variants: Collection[str],
        tripped: bool,
    ) -> Decision:
        """Decide who answers: the request's explicit choice, then the guard, then the split, then the default.

        Args:
            variant_values: Every `X-Model-Variant` value of the request.
            key_values: Every `X-Experiment-Key` value of the request.
            request_id: The request's id. It is the key of a request that brings none: such requests are split evenly,
                and a retry under the same id meets the same variant.
            variants: The variants that the model has.
            tripped: Whether the guard keeps traffic on the baseline.

        Raises:
            UnknownVariantError: The header names no variant.
            InvalidParameterError: The request has several different keys.
        """
        key = experiment_key(key_values)
        if variant_values:
            return Decision(choose_variant(variant_values, variants, self.plan.default), EXPLICIT)
        planned = (
            Decision(self.plan.default, "default")
            if self._split is None
            else Decision(self._split.assign(key or request_id), "split")
        )
        return Decision(BASELINE, "guard") if tripped and planned.variant != BASELINE else planned

    def configured_split(self) -> dict[str, float] | None:
        """The split's shares, summing to 1, or None without a split."""
        return None if self._split is None else self._split.shares

    def live_split(self, variants: Collection[str], *, tripped: bool) -> dict[str, float]:
        """Share of the requests without an explicit choice that each variant gets now."""
        shares = {BASELINE: 1.0} if tripped else self.configured_split() or {self.plan.default: 1.0}
        return {name: shares.get(name, 0.0) for name in sorted(variants)}


def shadow_of(variant: str, variants: Collection[str]) -> str | None:
    """The variant that `variant` is compared with: the baseline, or another for the baseline; None without one."""
    others = sorted(name for name in variants if name != variant)
    if variant == BASELINE:
        return others[0] if others else None
    return BASELINE if BASELINE in others else None
