"""One way to run a model. Nothing of the engine is imported here: processes that only speak HTTP know variants too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIANTS = ("baseline", "optimised")  # of every model


@dataclass(frozen=True)
class Variant:
    """One way to run a model.

    Attributes:
        name: "baseline" or "optimised".
        path: the ONNX or .om file to load.
        backend: the name of the engine backend that runs it.
        precision: "fp32", "fp16" or "int8".
        note: a sentence for people when the variant is not what they may expect; else empty.
        graph: the ONNX graph that an .om file was converted from; None for ONNX files.
        mean: per-channel mean to subtract where an .om file takes floats; None for ONNX files, which say it themselves.
        std: per-channel standard deviation to divide by then, else None.
        gate: what the gate said when this variant was quantised: the fields of `Verdict` in
            `tessera.engine.quantize.calibration`; None where it was not kept.
    """

    name: str
    path: Path
    backend: str
    precision: str
    note: str = ""
    graph: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    gate: dict[str, Any] | None = None
