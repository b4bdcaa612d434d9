from __future__ import annotations

from typing import Any

import pytest

from tessera.app.dispatch.experiment import open_experiment
from tessera.app.errors import StartupError
from tessera.app.observability.metrics import Metrics
from tessera.app.routing.events import Compared
from tessera.app.routing.shadow import Comparison
from tessera.app.routing.split import Split
from tessera.app.served.plan import check_plan, plan_from
from tessera.app.settings import Settings

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


def disagreeing_then_agreeing(window: int, recovery: str) -> tuple[int, bool]:
    """Comparisons that count while all is well, and whether a trip over a bad model outlasts a good one."""
    settings = Settings(guard_agreement=0.8, guard_window=window, guard_recovery=recovery)
    experiment = open_experiment(settings, BOTH, Metrics())
    for _ in range(5 * window):
        experiment.record(Compared(Comparison(True, 0.0, 1.0), None))
    guard: Any = experiment.snapshot()["guard"]
    samples = guard["agreement"]["images"]
    while not experiment.tripped:
        experiment.record(Compared(Comparison(False, 1.0, 1.0), None))
    for _ in range(5 * window):
        experiment.record(Compared(Comparison(True, 0.0, 1.0), None))
    return samples, experiment.tripped


@pytest.mark.effect_of("guard_window", "guard_recovery")
def test_window_and_recovery_of_the_guard_are_the_configured_ones() -> None:
    assert disagreeing_then_agreeing(200, "manual") == (200, True)
    assert disagreeing_then_agreeing(300, "automatic") == (300, False)


@pytest.mark.effect_of("split_salt")
def test_another_salt_assigns_anew() -> None:
    keys = [str(number) for number in range(100)]

    def assigned(salt: str) -> list[str]:
        plan = plan_from(Settings(split="optimised=1,baseline=1", split_salt=salt))
        assert plan.shares is not None
        return [Split(plan.shares, plan.salt).assign(key) for key in keys]

    assert assigned("spring") == assigned("spring")
    assert assigned("spring") != assigned("autumn")
