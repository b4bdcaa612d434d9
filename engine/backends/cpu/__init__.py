"""Our own engine: a lowered graph becomes a plan, the plan a program of the C core."""

from engine.backends.cpu.session import CpuSession

__all__ = ["CpuSession"]
