from __future__ import annotations

import pytest

from app.dispatch.experiment import check_plan, plan_from
from app.errors import StartupError
from app.settings import Settings

BOTH = ("baseline", "optimised")


def test_nothing_is_on_by_default() -> None:
    plan = plan_from(Settings())
    assert (plan.default, plan.shares, plan.shadow_share) == ("optimised", None, 0.0)


def test_a_guard_alone_brings_its_shadow() -> None:
    assert plan_from(Settings(guard_agreement=0.98)).shadow_share == 0.1
    assert plan_from(Settings(guard_agreement=0.98, shadow_share=0.5)).shadow_share == 0.5


@pytest.mark.parametrize(
    ("settings", "variants", "named"),
    [
        ({"split": "optimised=1,fast=1"}, BOTH, "'fast'.*baseline, optimised"),
        ({"shadow_share": 0.5}, ("baseline",), "'baseline'.*does not have both"),
        ({"guard_agreement": 0.9}, ("fast", "optimised"), "does not have both"),
    ],
)
def test_what_the_model_lacks_stops_the_start(
    settings: dict[str, object], variants: tuple[str, ...], named: str
) -> None:
    with pytest.raises(StartupError, match=named):
        check_plan(Settings(**settings), "m", variants)


def test_what_the_model_has_is_fine() -> None:
    check_plan(Settings(split="optimised=1", guard_agreement=0.9), "m", BOTH)
    check_plan(Settings(), "m", ("baseline",))
