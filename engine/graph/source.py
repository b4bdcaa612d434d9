"""One node as an ONNX file has it, before its attributes are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tessera.engine.errors import UnsupportedOperatorError
from tessera.engine.graph.ir import Node


@dataclass(frozen=True)
class Source:
    """One node as the ONNX file has it: `inputs` with "" for absent, `attributes` only those written."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def describe(self) -> str:
        """How error messages call this node."""
        return f"{self.op} node '{self.name}'"

    def input(self, index: int) -> str:
        """The input's value name, "" when absent."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def node(self, inputs: list[str], **attrs: Any) -> Node:
        """A graph node that writes what this one writes."""
        return Node(self.op, self.name, inputs, [self.outputs[0]], attrs)

    def refuse(self, reason: str) -> UnsupportedOperatorError:
        """The error for a form of this operator that the engine does not run."""
        return UnsupportedOperatorError(self.name, self.op, reason)
