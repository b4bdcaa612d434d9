"""Runs image classification graphs: our own CPU engine, ONNX Runtime, Ascend.

Example:
    >>> session = engine.load("model.onnx")
    >>> logits = session.run(x)
"""

from engine.budget import cpu_budget
from engine.errors import (
    BackendUnavailableError,
    DeviceError,
    EngineError,
    InputError,
    ModelError,
    UnsupportedOperatorError,
)
from engine.loading import load
from engine.peak import measure_peak
from engine.quantize import quantize
from engine.session import DeviceStatus, LayerTiming, Session, SessionInfo, TensorSpec

__all__ = [
    "BackendUnavailableError",
    "DeviceError",
    "DeviceStatus",
    "EngineError",
    "InputError",
    "LayerTiming",
    "ModelError",
    "Session",
    "SessionInfo",
    "TensorSpec",
    "UnsupportedOperatorError",
    "cpu_budget",
    "load",
    "measure_peak",
    "quantize",
]
