"""The backends by name. A new one is a package here and one object in this table."""

from __future__ import annotations

from tessera.engine.backend import Backend, LoadOptions
from tessera.engine.backends.ascend.backend import AscendBackend
from tessera.engine.backends.cpu.backend import CpuBackend
from tessera.engine.backends.onnxruntime.backend import OnnxRuntimeBackend

__all__ = ["BACKENDS", "Backend", "LoadOptions"]

# In the order in which `tessera.engine.load` tries those that open a kind of file.
BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (CpuBackend(), OnnxRuntimeBackend(), AscendBackend())
}
