"""What is served, described without the engine: processes that only speak HTTP load no weights and no runtime."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tessera.models.preprocessing import Preprocessing
from tessera.models.variant import Variant


@dataclass(frozen=True, kw_only=True)
class ServedVariant(Variant):
    """A variant that is served: what it was loaded from last, and what that runs as.

    Its precision is the session's: what most multiply-accumulates run in.

    Attributes:
        platform: As the Open Inference Protocol calls its backend.
        isa: Instruction-set level of its kernels; the provider's name for ONNX Runtime.
        threads: Threads of one run.
        macs: Multiply-accumulates per image.
        arena_bytes: Activation memory held between runs.
        peak: Measured peak multiply-accumulates per second at its precision, or None where it cannot be measured.
        batch_seconds: How long a batch took while warming up, by its size.
        explains: Whether it can say where its scores come from.
        loaded: Whether it answers; it was unloaded otherwise, and can be loaded again.
    """

    platform: str
    isa: str
    threads: int
    macs: int
    arena_bytes: int
    peak: float | None
    batch_seconds: dict[int, float]
    explains: bool = False
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
        profile: Where a profile of it is kept, once there is one; None: nowhere.
    """

    name: str
    labels: tuple[str, ...]
    input_name: str
    output_name: str
    preprocessing: Preprocessing
    variants: dict[str, ServedVariant]
    profile: Path | None = None

    def to_json(self) -> bytes:
        """Everything as JSON, for another process."""
        return json.dumps(asdict(self), default=os.fspath).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ServedModel:
        """The inverse of `to_json`."""
        fields = json.loads(data)
        preprocessing: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields["preprocessing"].items()
        }
        return cls(
            fields["name"],
            tuple(fields["labels"]),
            fields["input_name"],
            fields["output_name"],
            Preprocessing(**preprocessing),
            {name: _variant(variant) for name, variant in fields["variants"].items()},
            None if fields["profile"] is None else Path(fields["profile"]),
        )


def _variant(fields: dict[str, Any]) -> ServedVariant:
    fields["path"] = Path(fields["path"])
    if fields["graph"] is not None:
        fields["graph"] = Path(fields["graph"])
    for name in ("mean", "std"):
        if fields[name] is not None:
            fields[name] = tuple(fields[name])
    fields["batch_seconds"] = {int(size): seconds for size, seconds in fields["batch_seconds"].items()}
    return ServedVariant(**fields)
