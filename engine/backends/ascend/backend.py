"""Ascend NPUs among the backends."""

from __future__ import annotations

from pathlib import Path

from tessera.engine.backend import Backend, LoadOptions
from tessera.engine.backends.ascend.chips import find_chip
from tessera.engine.session import Session, SessionInfo


class AscendBackend(Backend):
    """Runs .om files on every Ascend device that this process may see.

    Args:
        devices: Where the driver shows its devices.
    """

    name = "ascend"
    suffixes = (".om",)
    platform = "ascend_om"

    def __init__(self, devices: Path = Path("/dev")) -> None:
        self._devices = devices

    def available(self) -> bool:
        """Whether the driver shows a device: /dev/davinci0 and so on."""
        return any(entry.name.removeprefix("davinci").isdigit() for entry in self._devices.glob("davinci*"))

    def open(self, path: Path, options: LoadOptions) -> Session:
        """See `Backend.open`. Of the precision, "int8" states what the file does not tell."""
        from tessera.engine.backends.ascend.session import AscendSession

        int8 = options.precision == "int8"
        return AscendSession(path, graph=options.graph, normalisation=options.normalisation, int8=int8)

    def machine(self, info: SessionInfo) -> str:
        """The chip's name."""
        return info.isa

    def caches(self, info: SessionInfo) -> dict[str, int]:
        """The L1 buffer of a core, and the L2 cache."""
        chip = find_chip(info.isa)
        return {} if chip is None else {"L1": chip.l1_bytes, "L2": chip.l2_bytes}
