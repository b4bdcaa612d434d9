"""Energy of the processor packages, as Linux counts it (Documentation/power/powercap: intel-rapl, also on AMD)."""

from __future__ import annotations

from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Reads the counters of all packages; they count everything that runs on the machine.

    Args:
        root: Where the kernel shows them.
    """

    def __init__(self, root: Path = _POWERCAP) -> None:
        self._packages = sorted(root.glob("*rapl:[0-9]*")) if root.is_dir() else []
        self._packages = [zone for zone in self._packages if zone.name.count(":") == 1]

    def problem(self) -> str:
        """Why there is no figure; empty when there is one."""
        if not self._packages:
            return "this host shows no energy counters (powercap)"
        try:
            self.read()
        except OSError as error:
            return f"its energy counters cannot be read: {error.strerror or error}; root can"
        return ""

    def read(self) -> list[int]:
        """Microjoules of each package since some time.

        Raises:
            OSError: A counter cannot be read.
            ValueError: A counter is no number.
        """
        return [int((zone / "energy_uj").read_text()) for zone in self._packages]

    def joules(self, before: list[int], after: list[int]) -> float:
        """Energy between two readings, of all packages together. A counter may begin again once.

        Raises:
            OSError: It did, and its range cannot be read.
            ValueError: Its range is no number.
        """
        return sum(map(self._grown, self._packages, before, after)) / 1e6

    @staticmethod
    def _grown(zone: Path, before: int, after: int) -> int:
        if after >= before:
            return after - before
        return after - before + int((zone / "max_energy_range_uj").read_text())
