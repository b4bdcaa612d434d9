"""Limits on what a variant may lose against the first one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypedDict

from tessera.models.evaluation.report import Result

Measure = Literal["top1", "top5"]
_MEASURES: dict[str, Measure] = {"top1": "top1", "top5": "top5"}


@dataclass(frozen=True)
class Gate:
    """At most so many percentage points may be lost.

    Attributes:
        measure: of which share.
        points: at most, 0 to 100.
    """

    measure: Measure
    points: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read `top5=0.5`.

        Raises:
            ValueError: it is something else; the message says what is expected.
        """
        measure, _, points = text.partition("=")
        try:
            limit = float(points)
        except ValueError:
            limit = math.nan
        if measure not in _MEASURES or not 0 <= limit <= 100:
            raise ValueError(f"'{text}' is no gate; write top5=0.5 or top1=1: percentage points, 0 to 100.")
        return cls(_MEASURES[measure], limit)


class Verdict(TypedDict):
    """What one variant lost by one gate, in percentage points; below 0 where it gained."""

    variant: str
    measure: Measure
    lost_points: float
    allowed_points: float
    passed: bool


def judge(gates: Iterable[Gate], found: Result) -> list[Verdict]:
    """Hold every variant but the first against every gate; nothing passes where no photo was counted."""
    (_, first), *others = found["variants"].items()
    verdicts: list[Verdict] = []
    for gate in gates:
        for name, variant in others:
            fewer = first[gate.measure]["count"] - variant[gate.measure]["count"]
            lost = 100 * fewer / found["photos"] if found["photos"] else 0.0
            passed = found["photos"] > 0 and lost <= gate.points
            verdicts.append(
                {
                    "variant": name,
                    "measure": gate.measure,
                    "lost_points": lost,
                    "allowed_points": gate.points,
                    "passed": passed,
                }
            )
    return verdicts
