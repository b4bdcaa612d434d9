"""Our own engine among the backends."""

from __future__ import annotations

from pathlib import Path

from tessera.engine.backend import Backend, LoadOptions
from tessera.engine.session import Session


class CpuBackend(Backend):
    """Runs ONNX files with the C core."""

    name = "cpu"
    platform = "tessera_onnx"

    def open(self, path: Path, options: LoadOptions) -> Session:
        """See `Backend.open`."""
        from tessera.engine.backends.cpu.session import CpuSession

        return CpuSession(path, options.threads, options.precision)
