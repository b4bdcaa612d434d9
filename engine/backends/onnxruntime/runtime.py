"""ONNX Runtime, imported with its usage telemetry off: a service must not send data unasked."""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # reads the variable above while it is imported

__all__ = ["onnxruntime"]
