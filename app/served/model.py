"""What is served, described without the engine: processes that only speak HTTP load no weights and no runtime."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tessera.app.scheduling.lanes import lane_of
from tessera.models.preprocessing.image_size import Size, of_sides
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.variant import Variant


@dataclass(frozen=True)
class FurtherSize:
    """What differs of a variant at a further size.

    Attributes:
        macs: Multiply-accumulates per image.
        arena_bytes: Activation memory held between runs.
        batch_seconds: How long a batch took while warming up, by its images.
    """

    macs: int
    arena_bytes: int
    batch_seconds: dict[int, float]


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
        further: By lane, the same figures for further sizes.
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
    further: dict[str, FurtherSize] = field(default_factory=dict)

    @property
    def all_arena_bytes(self) -> int:
        """Activation memory held between runs, of all sizes."""
        return self.arena_bytes + sum(further.arena_bytes for further in self.further.values())

    def at(self, lane: str) -> ServedVariant:
        """The variant with the figures of one of its lanes."""
        return self if lane == self.name else replace(self, **vars(self.further[lane]))


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
        others: How photos become its input for further sizes.
    """

    name: str
    labels: tuple[str, ...]
    input_name: str
    output_name: str
    preprocessing: Preprocessing
    variants: dict[str, ServedVariant]
    profile: Path | None = None
    others: tuple[Preprocessing, ...] = ()

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes of its images, the usual one first."""
        return (self.preprocessing.size, *(other.size for other in self.others))

    def lane(self, variant: str, size: Size | None) -> str:
        """The lane of a variant at one of its sizes; None: the usual one."""
        return lane_of(variant, None if size == self.preprocessing.size else size)

    def size_of(self, tensor: np.ndarray) -> Size:
        """The size of the images in a tensor: [N, height, width, 3] of uint8, else [N, 3, height, width]."""
        height, width = tensor.shape[1:3] if tensor.dtype == np.uint8 else tensor.shape[2:4]
        return of_sides(height, width)

    @cached_property
    def lanes(self) -> dict[str, Preprocessing]:
        """Every lane, and how photos become its input."""
        return {
            self.lane(variant, each.size): each
            for variant in self.variants
            for each in (self.preprocessing, *self.others)
        }

    def to_json(self) -> bytes:
        """Everything as JSON, for another process."""
        return json.dumps(asdict(self), default=os.fspath).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ServedModel:
        """The inverse of `to_json`."""
        fields = json.loads(data)
        return cls(
            fields["name"],
            tuple(fields["labels"]),
            fields["input_name"],
            fields["output_name"],
            _preprocessing(fields["preprocessing"]),
            {name: _variant(variant) for name, variant in fields["variants"].items()},
            None if fields["profile"] is None else Path(fields["profile"]),
            tuple(map(_preprocessing, fields["others"])),
        )


def _preprocessing(fields: dict[str, Any]) -> Preprocessing:
    told: dict[str, Any] = {name: tuple(of) if isinstance(of, list) else of for name, of in fields.items()}
    return Preprocessing(**told)


def _variant(fields: dict[str, Any]) -> ServedVariant:
    fields["path"] = Path(fields["path"])
    if fields["graph"] is not None:
        fields["graph"] = Path(fields["graph"])
    for name in ("mean", "std"):
        if fields[name] is not None:
            fields[name] = tuple(fields[name])
    for figures in (fields, *fields["further"].values()):
        figures["batch_seconds"] = {int(images): seconds for images, seconds in figures["batch_seconds"].items()}
    fields["further"] = {lane: FurtherSize(**figures) for lane, figures in fields["further"].items()}
    return ServedVariant(**fields)
