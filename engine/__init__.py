"""Runs image classification graphs: our own CPU engine, ONNX Runtime, Ascend.

Example:
    >>> session = engine.load("model.onnx")
    >>> logits = session.run(x)
"""

from tessera.engine.budget import cpu_budget
from tessera.engine.errors import (
    BackendUnavailableError,
    DeviceError,
    EngineError,
    InputError,
    ModelError,
    UnsupportedModelError,
    UnsupportedOperatorError,
)
from tessera.engine.head import HeatMaps
from tessera.engine.loading import load
from tessera.engine.peak import measure_peak
from tessera.engine.quantize import quantize
from tessera.engine.session import DeviceStatus, LayerTiming, Session, SessionInfo, Slice, TensorSpec

__all__ = [
    "BackendUnavailableError",
    "DeviceError",
    "DeviceStatus",
    "EngineError",
    "HeatMaps",
    "InputError",
    "LayerTiming",
    "ModelError",
    "Session",
    "SessionInfo",
    "Slice",
    "TensorSpec",
    "UnsupportedModelError",
    "UnsupportedOperatorError",
    "cpu_budget",
    "load",
    "measure_peak",
    "quantize",
]
