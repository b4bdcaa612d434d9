"""The processor of this machine: its name, its maker and its caches."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's name, as the kernel knows it."""
    return _cpuinfo("model name", "Model") or platform.processor() or platform.machine()


def cpu_vendor() -> str:
    """The processor's maker as CPUID names it, such as "GenuineIntel"; empty where there is no CPUID."""
    return _cpuinfo("vendor_id")


def _cpuinfo(*keys: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(keys):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def cache_sizes(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, int]:
    """Bytes of the data caches by name ("L1", "L2", "L3"), from sysfs; empty where the kernel does not say."""
    sizes = {}
    for entry in sorted(root.glob("index*")):
        try:
            kind, level = (entry / "type").read_text().strip(), (entry / "level").read_text().strip()
            size = (entry / "size").read_text().strip()
            if kind in ("Data", "Unified"):
                sizes[f"L{level}"] = int(size.rstrip("KM")) * (1 << 20 if size.endswith("M") else 1 << 10)
        except (OSError, ValueError):
            continue
    return sizes
