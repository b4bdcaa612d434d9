"""What is served, described without the engine: processes that only speak HTTP load no weights and no runtime."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from tessera.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class VariantFiles:
    """What a variant was loaded from, for an engine process that has to load the very same again.

    Attributes:
        path: The ONNX or .om file.
        backend: The engine backend that it is meant for.
        precision: Its precision by the registry, "fp32", "fp16" or "int8".
        graph: The ONNX graph that an .om file was converted from; None for ONNX files.
        mean: Per-channel mean to subtract where an .om file takes floats, else None.
        std: Per-channel standard deviation to divide by where an .om file takes floats, else None.
    """

    path: str
    backend: str
    precision: str
    graph: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ServedVariant:
    """One loaded variant.

    Attributes:
        name: Its name on the wire.
        backend: The name of the engine backend that runs it.
        platform: As the Open Inference Protocol calls that backend.
        isa: Instruction-set level of its kernels; the provider's name for ONNX Runtime.
        precision: What most multiply-accumulates run in.
        threads: Threads of one run.
        macs: Multiply-accumulates per image.
        arena_bytes: Activation memory held between runs.
        peak: Measured peak multiply-accumulates per second at its precision, or None where it cannot be measured.
        note: A remark of the registry's; may be empty.
        batch_seconds: How long a batch took while warming up, by its size.
        loaded: Whether it answers; it was unloaded otherwise, and can be loaded again.
        files: What it was loaded from last.
        gate: What the gate said when it was quantised: the fields of `Verdict` in
            `tessera.engine.quantize.calibration`; None where nobody has kept it.
    """

    name: str
    backend: str
    platform: str
    isa: str
    precision: str
    threads: int
    macs: int
    arena_bytes: int
    peak: float | None
    note: str
    batch_seconds: dict[int, float]
    loaded: bool = True
    files: VariantFiles | None = None
    gate: dict[str, Any] | None = None


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
            files = variant.pop("files")
            variants[name] = ServedVariant(
                **variant, batch_seconds=seconds, files=None if files is None else _files(files)
            )
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


def _files(fields: dict[str, Any]) -> VariantFiles:
    tuples = {name: tuple(fields[name]) for name in ("mean", "std") if fields[name] is not None}
    return VariantFiles(**{**fields, **tuples})
