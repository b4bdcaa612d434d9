"""What a variant may lose, on counts where the limit is exact."""

from __future__ import annotations

import pytest

from tessera.models.evaluation.gates import Gate, judge
from tessera.models.evaluation.report import Result, result
from tessera.models.evaluation.state import Block
from tessera.models.evaluation.tally import Tally


def found(photos: int, top5: tuple[int, ...]) -> Result:
    names = ("baseline", "optimised", "third")
    tallies = {n: Tally(photos=photos, top1=t, top5=t) for n, t in zip(names, top5, strict=False)}
    return result(Block(photos, tallies))


@pytest.mark.parametrize(("right", "passed"), [(990, True), (985, True), (984, False), (999, True)])
def test_the_limit_itself_passes(right: int, passed: bool) -> None:
    (verdict,) = judge([Gate.parse("top5=0.5")], found(1000, (990, right)))
    assert verdict["passed"] == passed
    assert verdict["lost_points"] == pytest.approx((990 - right) / 10)


def test_every_variant_meets_every_gate() -> None:
    verdicts = judge([Gate("top5", 0.5), Gate("top1", 2.0)], found(100, (90, 90, 89)))
    assert [(v["variant"], v["measure"], v["passed"]) for v in verdicts] == [
        ("optimised", "top5", True),
        ("third", "top5", False),
        ("optimised", "top1", True),
        ("third", "top1", True),
    ]


def test_nothing_passes_without_photos() -> None:
    (verdict,) = judge([Gate("top5", 0.5)], found(0, (0, 0)))
    assert not verdict["passed"]
