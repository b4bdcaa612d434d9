"""What the settings ask of an experiment, and whether a model has what that takes."""

from __future__ import annotations

from collections.abc import Collection

from tessera.app.errors import StartupError
from tessera.app.routing.router import BASELINE, Plan
from tessera.app.routing.split import parse_split
from tessera.app.settings import Settings


def plan_from(settings: Settings) -> Plan:
    """What the settings ask for."""
    return Plan(
        default=settings.default_variant,
        shares=None if settings.split is None else parse_split(settings.split),
        salt=settings.split_salt,
        shadow_share=settings.effective_shadow_share,
    )


def check_plan(settings: Settings, model: str, variants: Collection[str]) -> None:
    """Check that the model has what the settings ask for.

    Raises:
        StartupError: The split names no variant of it, or there are no two variants to compare.
    """
    plan = plan_from(settings)
    unknown = sorted(plan.shares.keys() - set(variants)) if plan.shares else []
    if unknown:
        raise StartupError(
            f"The split names {', '.join(map(repr, unknown))}, and {model} has: {', '.join(sorted(variants))}."
        )
    if plan.shadow_share > 0 and (BASELINE not in variants or len(variants) < 2):
        raise StartupError(f"Shadow mode compares another variant with {BASELINE!r}; {model} does not have both.")
