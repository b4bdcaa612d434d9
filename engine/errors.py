"""Everything the engine can complain about.

One tree, so that callers catch as widely or as narrowly as they mean to:

    EngineError
    ├── ModelError                    the model file is corrupt, malformed or outside what the engine runs
    │   └── UnsupportedModelError     the file may be right, but it is outside what our engine runs
    │       └── UnsupportedOperatorError  one operator, or one form of it, is
    ├── InputError (also ValueError)  the array given to a run has the wrong type or shape
    ├── BackendUnavailableError       the requested backend cannot work on this machine
    └── DeviceError                   an accelerator failed while it was used
"""

from __future__ import annotations

__all__ = [
    "BackendUnavailableError",
    "DeviceError",
    "EngineError",
    "InputError",
    "ModelError",
    "UnsupportedModelError",
    "UnsupportedOperatorError",
]


class EngineError(Exception):
    """Base of every error raised by the engine on purpose."""


class ModelError(EngineError):
    """A model file is corrupt, malformed, or asks for something the engine does not run."""


class UnsupportedModelError(ModelError):
    """A model that may be right, and is outside what our engine runs: ONNX Runtime may run it."""

    @property
    def brief(self) -> str:
        """What stands in the way, in one sentence without its last dot."""
        return str(self).split(". ")[0].removesuffix(".")


class UnsupportedOperatorError(UnsupportedModelError):
    """One node of a model uses an operator, or a form of an operator, that the engine does not run.

    Attributes:
        node: name of the node in the model file.
        operator: its operator type, with the domain when it is not a standard ONNX operator.
    """

    def __init__(self, node: str, operator: str, reason: str) -> None:
        super().__init__(node, operator, reason)
        self.node = node
        self.operator = operator
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.operator} node '{self.node}': {self.reason} Export the network in a form without this node."


class InputError(EngineError, ValueError):
    """An array given to a run has the wrong type, rank or size."""


class BackendUnavailableError(EngineError):
    """The requested backend cannot work on this machine."""


class DeviceError(EngineError):
    """An accelerator failed while it was used, or none that works is left."""
