"""What is served, described without the engine: processes that only speak HTTP load no weights and no runtime."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from models.preprocessing import Preprocessing


@dataclass(frozen=True)
class ServedVariant:
    """One loaded variant.

    Attributes:
        name: Its name on the wire.
        backend: "cpu", "onnxruntime" or "ascend".
        isa: Instruction-set level of its kernels; the provider's name for ONNX Runtime.
        precision: What most multiply-accumulates run in.
        threads: Threads of one run.
        macs: Multiply-accumulates per image.
        arena_bytes: Activation memory held between runs.
        peak: Measured peak multiply-accumulates per second at its precision, or None where it cannot be measured.
        note: A remark of the registry's; may be empty.
        batch_seconds: How long a batch took while warming up, by its size.
        loaded: Whether it answers; it was unloaded otherwise, and can be loaded again.
    """

    name: str
    backend: str
    isa: str
    precision: str
    threads: int
    macs: int
    arena_bytes: int
    peak: float | None
    note: str
    batch_seconds: dict[int, float]
    loaded: bool = True


@dataclass(frozen=True)
class ServedModel:
    """The loaded model.

    Attributes:
        name: The model's name.
        labels: Class names, in the order of the scores.
        input_name: Name of the network's input.
        output_name: Name of its output, the scores.
        preprocessing: How photos become its input.
        variants: By name.
    """

    name: str
    labels: tuple[str, ...]
    input_name: str
    output_name: str
    preprocessing: Preprocessing
    variants: dict[str, ServedVariant]

    def to_json(self) -> bytes:
        """Everything as JSON, for another process."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ServedModel:
        """The inverse of `to_json`."""
        fields = json.loads(data)
        variants = {}
        for name, variant in fields["variants"].items():
            seconds = {int(size): value for size, value in variant.pop("batch_seconds").items()}
            variants[name] = ServedVariant(**variant, batch_seconds=seconds)
        preprocessing: dict[str, Any] = fields["preprocessing"]
        for name in ("mean", "std"):
            preprocessing[name] = tuple(preprocessing[name])
        return cls(
            fields["name"],
            tuple(fields["labels"]),
            fields["input_name"],
            fields["output_name"],
            Preprocessing(**preprocessing),
            variants,
        )
