"""What Ascend chips can do at most, by the name that ATC and AscendCL give them.

From `data/platform_config/<soc>.ini` of CANN 8.1: cores, clock and buffers. The cube unit of a core multiplies
16 x 16 x 16 values per cycle in fp16 (16 x 32 x 16 in int8).
"""

from __future__ import annotations

from dataclasses import dataclass

_MACS_PER_CYCLE = {"fp16": 16 * 16 * 16, "int8": 16 * 32 * 16}


@dataclass(frozen=True)
class Chip:
    """One Ascend chip.

    Attributes:
        cores: AI cores with a cube unit.
        megahertz: clock of the cube unit.
        l1_bytes: L1 buffer of a core.
        l2_bytes: L2 cache that the cores share.
    """

    cores: int
    megahertz: int
    l1_bytes: int
    l2_bytes: int

    def peak(self, precision: str) -> float:
        """MAC/s of all cores together with every cube unit busy in every cycle.

        Raises:
            ValueError: the cube unit has no such precision.
        """
        if precision not in _MACS_PER_CYCLE:
            raise ValueError(f"Ascend's cube unit computes in {' or '.join(_MACS_PER_CYCLE)}, not in {precision}.")
        return self.cores * self.megahertz * 1e6 * _MACS_PER_CYCLE[precision]


_MIB = 1 << 20

CHIPS = {
    "Ascend310B1": Chip(1, 1224, _MIB, 4 * _MIB),
    "Ascend310B2": Chip(1, 1224, _MIB, 4 * _MIB),
    "Ascend310B3": Chip(1, 1224, _MIB, 4 * _MIB),
    "Ascend310B4": Chip(1, 500, _MIB, 4 * _MIB),
    "Ascend310P1": Chip(10, 1060, _MIB, 16 * _MIB),
    "Ascend310P3": Chip(8, 1060, _MIB, 16 * _MIB),
    "Ascend310P5": Chip(8, 800, _MIB, 16 * _MIB),
    "Ascend310P7": Chip(8, 550, _MIB, 16 * _MIB),
    "Ascend910B1": Chip(24, 1850, _MIB // 2, 192 * _MIB),
    "Ascend910B2": Chip(24, 1800, _MIB // 2, 192 * _MIB),
    "Ascend910B3": Chip(20, 1800, _MIB // 2, 192 * _MIB),
    "Ascend910B4": Chip(20, 1500, _MIB // 2, 96 * _MIB),
}


def find_chip(soc: str) -> Chip | None:
    """The chip of that name; None where its peak is not known, as for the first Ascend310."""
    return CHIPS.get(soc)
