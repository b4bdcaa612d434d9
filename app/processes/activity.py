"""What the operating system says that a process is doing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_STATE, _USER, _SYSTEM = 0, 11, 12  # among the fields of proc_pid_stat(5) that follow the name


class Activity(NamedTuple):
    """What a process is doing at one moment.

    Attributes:
        runs: Whether any of its threads computes, or would if a core were free.
        cpu_seconds: What each of its threads has computed so far, by thread id.
    """

    runs: bool
    cpu_seconds: dict[int, float]


def activity_of(pid: int) -> Activity:
    """What a process of the same user is doing; one that has ended does nothing."""
    runs, cpu_seconds = False, {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        threads = []
    for thread in threads:
        try:
            stat = Path(f"/proc/{pid}/task/{thread}/stat").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        fields = stat.rpartition(b")")[2].split()
        runs = runs or fields[_STATE] == b"R"
        cpu_seconds[int(thread)] = (int(fields[_USER]) + int(fields[_SYSTEM])) * _TICK
    return Activity(runs, cpu_seconds)
