"""The body of an infer answer, and the classification extension."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera.app.oip.wire.datatypes import BYTES, pack_elements

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class OutputTensor:
    """One output.

    Attributes:
        name: The output's name.
        shape: Its shape.
        values: float32 of `shape`; None for BYTES.
        elements: The elements of a BYTES tensor in row-major order.
    """

    name: str
    shape: tuple[int, ...]
    values: np.ndarray | None = None
    elements: tuple[bytes, ...] = ()

    @property
    def datatype(self) -> str:
        """FP32 or BYTES."""
        return BYTES if self.values is None else "FP32"

    def to_binary(self) -> bytes:
        """The payload as binary data."""
        if self.values is None:
            return pack_elements(self.elements)
        return np.ascontiguousarray(self.values, "<f4").tobytes()

    def to_json(self) -> list[object]:
        """The payload as a flat list."""
        if self.values is None:
            return [element.decode("utf-8", "replace") for element in self.elements]
        flat: list[object] = self.values.ravel().tolist()
        return flat


def classify_output(name: str, logits: np.ndarray, classes: int, labels: Sequence[str]) -> OutputTensor:
    """The best classes of each image as texts `value:index:label`, best first; equal values keep the classes' order.

    Args:
        name: The output's name.
        logits: float32 [N, C].
        classes: How many; more than C gives C.
        labels: One per class.

    Returns:
        A BYTES tensor of shape [N, min(classes, C)].
    """
    kept = min(classes, logits.shape[1])
    order = np.argsort(-logits, axis=1, kind="stable")[:, :kept]
    elements = tuple(
        f"{float(row[index]):.6f}:{index}:{labels[index]}".encode()
        for row, best in zip(logits, order, strict=True)
        for index in best
    )
    return OutputTensor(name, (len(logits), kept), elements=elements)


def build_response(
    model: str, version: str, request_id: str, outputs: Sequence[tuple[OutputTensor, bool]]
) -> tuple[dict[str, str], bytes]:
    """Build headers and body of a successful answer.

    Args:
        model: The model's name, as the client addressed it.
        version: The version that answered.
        request_id: The client's own id; "" leaves it out.
        outputs: Each output and whether it travels as binary data.

    Returns:
        The headers that depend on the body (Content-Type, and the length of the JSON when binary data follows), and
        the body.
    """
    document: dict[str, object] = {"model_name": model, "model_version": version}
    if request_id:
        document["id"] = request_id
    entries: list[dict[str, object]] = []
    payloads = []
    for tensor, binary in outputs:
        entry: dict[str, object] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary:
            payloads.append(tensor.to_binary())
            entry["parameters"] = {"binary_data_size": len(payloads[-1])}
        else:
            entry["data"] = tensor.to_json()
        entries.append(entry)
    document["outputs"] = entries
    header = json.dumps(document, separators=(",", ":")).encode()
    if not payloads:
        return {"Content-Type": "application/json"}, header
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return headers, b"".join((header, *payloads))
