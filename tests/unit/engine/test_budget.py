from __future__ import annotations

import os
from pathlib import Path

import pytest

from tessera.engine import cpu_budget

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", CORES),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("100000000 100000\n", CORES),
        ("?", CORES),
    ],
)
def test_cgroup_v2_quota_bounds_the_budget(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cpu_budget(tmp_path) == expected


def test_cgroup_v1_quota_bounds_the_budget(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpu_budget(tmp_path) == 1
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_budget(tmp_path) == CORES


def test_affinity_bounds_the_budget(tmp_path: Path) -> None:
    assert cpu_budget(tmp_path) == CORES
