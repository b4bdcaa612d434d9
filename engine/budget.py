"""How many threads this process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_budget(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """min(CPU affinity, cgroup quota), at least 1.

    Sizing from the host's cores instead is what makes containers with a quota stall: the kernel stops all threads of a
    group whose quota is used up.

    Args:
        cgroup: where the process's cgroup file system is mounted (v2 `cpu.max`, v1 `cpu/cpu.cfs_quota_us`).
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_v2(cgroup / "cpu.max") or _quota_v1(cgroup / "cpu")
    return max(1, min(affinity, quota) if quota else affinity)


def _quota_v2(path: Path) -> int | None:
    """Whole cores of "<quota> <period>" in microseconds; None for no limit."""
    try:
        quota, period = path.read_text().split()
        return None if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> int | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return None if quota < 0 else max(1, quota // period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
