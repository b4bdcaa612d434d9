"""ONNX Runtime among the backends."""

from __future__ import annotations

from pathlib import Path

from tessera.engine.backend import Backend, LoadOptions
from tessera.engine.session import Session


class OnnxRuntimeBackend(Backend):
    """Runs ONNX files on ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    platform = "onnxruntime_onnx"

    def open(self, path: Path, options: LoadOptions) -> Session:
        """See `Backend.open`."""
        from tessera.engine.backends.onnxruntime.session import OnnxRuntimeSession

        return OnnxRuntimeSession(path, options.threads)
