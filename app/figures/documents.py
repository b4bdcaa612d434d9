"""What `bench`, `profile` and `report` write with `--json`. The schemas in docs/schemas are made of these models."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tessera.app.version import service_version

if TYPE_CHECKING:  # a process that only speaks HTTP describes a profile, and must not load the engine
    from tessera import engine


class VariantBody(BaseModel):
    """What ran."""

    backend: str
    precision: str
    isa: str = Field(description="instruction set, or the runtime's version")
    threads: int
    macs_per_image: int
    peak_macs_per_second: float | None = Field(description="register peak at this precision and threads; null: unknown")


class MeasurementBody(BaseModel):
    """One variant at one batch size."""

    variant: str
    batch: int
    seconds: list[float] = Field(description="of every round, in order; a round runs every variant once")
    milliseconds: float = Field(description="median over rounds")
    mean_milliseconds: float = Field(description="mean over rounds")
    stages: dict[str, list[float]] = Field(
        description="seconds of every round by stage: on Ascend host, h2d, execution, d2h; empty where there are none"
    )
    images_per_second: float = Field(description="by the median")
    peak_share: float | None = Field(description="achieved MAC/s over the register peak, 0 to 1; null: unknown")
    speed_up: float = Field(description="median of the ratios within rounds, the first variant's time over this one's")
    speed_up_low: float = Field(description="end of its interval of at least 95 %, by the ranks of the ratios")
    speed_up_high: float = Field(description="the other end")
    agreement: float = Field(description="share of images with the first variant's label, 0 to 1")


class ReadsBody(BaseModel):
    """How fast the machine reads, all threads of a run together."""

    l2_bytes: int = Field(description="of one core")
    within: float = Field(description="bytes a second from L2")
    beyond: float = Field(description="bytes a second from behind it")


class SummaryBody(BaseModel):
    """One variant's layers together: the figures that the reference article quotes."""

    milliseconds: float = Field(description="of the batch, sum of all layers")
    milliseconds_3x3: float = Field(description="of all 3x3 convolutions")
    images_per_second: float
    peak_share: float = Field(description="achieved MAC/s over the register peak, weighted by time")
    peak_share_3x3: float
    macs_per_byte: float = Field(description="multiply-accumulates by byte that crosses into the core at least")
    cache_share: float = Field(description="share of these bytes of layers whose working set fits L2, 0 to 1")
    mac_ratio: float | None = Field(description="share of time in which a device's matrix unit worked; null: unknown")
    core_share: float | None = Field(description="share of all its cores' time in which a device worked; null: unknown")
    bandwidths: dict[str, float] = Field(description="GB/s that a device counted, by buffer, mean over time")


class LayerBody(BaseModel):
    """One layer, median over runs; see `tessera.engine.LayerTiming`."""

    name: str
    op: str
    kernel: str
    layer_class: str
    milliseconds: float = Field(description="for the whole batch")
    macs: int = Field(description="for the whole batch")
    peak_share: float
    memory_share: float
    bound: str | None = Field(description="products, memory or other; null: not known")
    bytes_moved: int
    working_set: int
    mac_ratio: float | None = Field(description="share of cycles in which a device's matrix unit worked")
    core_share: float | None = Field(description="share of all its cores' time in which a device ran it")
    bandwidths: dict[str, float] = Field(description="GB/s that a device counted, by buffer, without what it cannot")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Document(BaseModel):
    """What every document says of its origin."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    tessera: str = Field(default_factory=service_version, description="version of the program")
    made_at: str = Field(default_factory=_now, description="ISO 8601, UTC")
    model: str
    machine: str
    variants: dict[str, VariantBody]


class BenchDocument(Document):
    """`tessera bench --json`."""

    kind: Literal["bench"] = "bench"
    rounds: int
    measurements: list[MeasurementBody]


class ProfileDocument(Document):
    """`tessera profile --json`."""

    kind: Literal["profile"] = "profile"
    batch: int
    runs: int
    reads: ReadsBody | None = Field(description="null where the backend does not say")
    summaries: dict[str, SummaryBody]
    layers: dict[str, list[LayerBody]] = Field(description="of each variant, in the order in which they run")


class EnergyBody(BaseModel):
    """What the processor packages took, everything else that ran on the machine included."""

    problem: str = Field(description="why there is no figure; empty when there is one")
    joules_per_image: dict[str, float] = Field(description="by variant, at the largest batch")


class ReportDocument(Document):
    """`tessera report --json`."""

    kind: Literal["report"] = "report"
    command: str = Field(description="what repeats it")
    versions: dict[str, str] = Field(description="of Python, the system and every engine that took part")
    profile: ProfileDocument
    speed: BenchDocument = Field(description="engines alone, on normalised floats; variants are named as such")
    left_out: dict[str, str] = Field(description="engines that did not take part, and why")
    accuracy: dict[str, Any] | None = Field(
        description="what `tessera models evaluate --json` writes; null: no labelled photos were given"
    )
    energy: EnergyBody


def describe(session: engine.Session) -> VariantBody:
    """Say what a session runs on."""
    info = session.describe()
    return VariantBody(
        backend=info.backend,
        precision=info.precision,
        isa=info.isa,
        threads=info.threads,
        macs_per_image=info.macs,
        peak_macs_per_second=session.peak(),
    )


def write_document(path: Path, document: Document) -> None:
    """Write a document, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    from tessera.engine.quantize.files import write_whole  # as above

    write_whole(path, (document.model_dump_json(indent=2) + "\n").encode())


def schema(kind: type[Document]) -> str:
    """The JSON schema of a document, as docs/schemas has it."""
    return json.dumps(kind.model_json_schema(mode="serialization"), indent=2) + "\n"
