"""Networks of other families than ResNet-50, with random weights: our engine, ONNX Runtime and OpenVINO, in turns.

.venv/bin/python -m benchmarks.families                     # all of NAMES, batch 1 and 16
.venv/bin/python -m benchmarks.families --sizes 160,224x320 --batches 1,16,64 --only ResNet-50
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from tessera import engine
from tessera.app.figures.rivals import OpenVino
from tessera.engine.machine import cpu_name
from tessera.engine.quantize import calibrate, quantised_model
from tessera.models.contest import take_turns
from tests.unit.models.families import Builder

# expansion, channels, blocks, stride, kernel
Stage = tuple[int, int, int, int, int]

_MOBILENET_V2: Sequence[Stage] = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
_EFFICIENTNET_B0: Sequence[Stage] = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_RESNET_50: Sequence[tuple[int, int]] = ((64, 3), (128, 4), (256, 6), (512, 3))

Size = tuple[int, int]


def inverted(stages: Sequence[Stage], activation: str, gate: str, size: Size) -> onnx.ModelProto:
    """Inverted bottlenecks around depthwise convolutions; no gates where `gate` is empty."""
    made = Builder(classes=1000)

    def active(value: str) -> str:
        if activation == "Swish":
            return made.node("Mul", value, made.node("Sigmoid", value))
        if activation == "Clip":
            return made.node("Clip", value, low, high)
        return made.node(activation, value)

    low, high = made.constant(np.float32(0)), made.constant(np.float32(6))
    value, channels = active(made.conv("image", 32, 3, 3, stride=2)), 32
    for expansion, outputs, blocks, stride, kernel in stages:
        for block in range(blocks):
            inner, wide = value, channels * expansion
            if expansion > 1:
                inner = active(made.conv(inner, wide, channels, 1))
            inner = active(made.conv(inner, wide, wide, kernel, stride=1 if block else stride, groups=wide))
            if gate:
                inner = made.gated(inner, wide, channels // 4, gate)
            inner = made.conv(inner, outputs, wide, 1)
            value, channels = made.node("Add", value, inner) if block else inner, outputs
    return made.model(made.head(active(made.conv(value, 1280, channels, 1)), 1280), sizes=size)


def resnet_50(size: Size, *, gated: bool) -> onnx.ModelProto:
    """ResNet-50, or with a gate in front of every addition SE-ResNet-50."""
    made = Builder(classes=1000)
    stem = made.node("Relu", made.conv("image", 64, 3, 7, stride=2))
    value, channels = made.node("MaxPool", stem, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, (width, blocks) in enumerate(_RESNET_50):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            inner = made.node("Relu", made.conv(value, width, channels, 1))
            inner = made.node("Relu", made.conv(inner, width, width, 3, stride=stride))
            inner = made.conv(inner, 4 * width, width, 1)
            if gated:
                inner = made.gated(inner, 4 * width, width // 4, "Sigmoid")
            short = value if block else made.conv(value, 4 * width, channels, 1, stride=stride)
            value, channels = made.node("Relu", made.node("Add", inner, short)), 4 * width
    return made.model(made.head(value, channels), sizes=size)


def network(name: str, size: Size) -> onnx.ModelProto:
    """A network by its name in `NAMES`."""
    match name:
        case "MobileNetV2":
            return inverted(_MOBILENET_V2, "Clip", "", size)
        case "MobileNetV3":
            return inverted(_EFFICIENTNET_B0, "HardSwish", "HardSigmoid", size)
        case "EfficientNet-B0":
            return inverted(_EFFICIENTNET_B0, "Swish", "Sigmoid", size)
        case _:
            return resnet_50(size, gated=name.startswith("SE"))


OURS = "ours"
NAMES = ("MobileNetV2", "MobileNetV3", "EfficientNet-B0", "SE-ResNet-50", "ResNet-50")


@dataclass(frozen=True)
class Row:
    """One network at one batch.

    Attributes:
        batch: images.
        milliseconds: an image, least of all rounds, by engine; ours first.
        ratios: median over rounds of an engine's time over ours.
        off: largest difference of our answers from ONNX Runtime's, over the largest answer.
    """

    batch: int
    milliseconds: dict[str, float]
    ratios: dict[str, float]
    off: float


def compare(path: Path, precision: str, batches: Sequence[int], rounds: int, threads: int) -> list[Row]:
    """Time every engine on one file."""
    rows = []
    with ExitStack() as opened:
        sessions: dict[str, engine.Session] = {
            OURS: opened.enter_context(engine.load(path, backend="cpu", threads=threads)),
            "ONNX Runtime": opened.enter_context(engine.load(path, backend="onnxruntime", threads=threads)),
        }
        with suppress(ImportError):
            sessions["OpenVINO"] = opened.enter_context(OpenVino(path, precision, threads))
        sizes = [size or 1 for size in sessions[OURS].describe().inputs[0].shape[1:]]
        for batch in batches:
            images = np.random.default_rng(0).normal(0, 1, (batch, *sizes)).astype(np.float32)
            answers = [session.run(images) for session in sessions.values()]
            off = float(np.abs(answers[0] - answers[1]).max() / np.abs(answers[1]).max())
            turns = rounds if batch < 8 else max(3, rounds // 4)
            times = np.array([take_turns(list(sessions.values()), images) for _ in range(turns)])
            least = times.min(axis=0) / batch * 1e3
            ratios = np.median(times / times[:, :1], axis=0)
            named = [dict(zip(sessions, map(float, found), strict=True)) for found in (least, ratios)]
            rows.append(Row(batch, named[0], named[1], off))
    return rows


def _size(text: str) -> Size:
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=NAMES, help="one network")
    parser.add_argument("--sizes", default="224", help="heights, or heights x widths, with commas")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", default="fp32,int8")
    arguments = parser.parse_args()
    print(f"{cpu_name()}, {arguments.threads} threads; minima in ms an image, medians of ratios of runs in turns\n")
    print("| network | size | precision | batch | ours | ONNX Runtime | ratio | OpenVINO | ratio | answers differ by |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---:|")
    batches = [int(batch) for batch in arguments.batches.split(",")]
    for name in [arguments.only] if arguments.only else NAMES:
        for size in map(_size, arguments.sizes.split(",")):
            model = network(name, size)
            for precision in arguments.precisions.split(","):
                made = model
                if precision == "int8":
                    images = np.random.default_rng(1).normal(0, 1, (8, 3, *size)).astype(np.float32)
                    made = quantised_model(model, calibrate(model, [images], method="max", fallback="none")[0])
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "network.onnx"
                    onnx.save(made, path)
                    for row in compare(path, precision, batches, arguments.rounds, arguments.threads):
                        cells = [
                            name,
                            f"{size[0]}x{size[1]}",
                            precision,
                            str(row.batch),
                            f"{row.milliseconds[OURS]:.2f}",
                        ]
                        for other in ("ONNX Runtime", "OpenVINO"):
                            there = other in row.ratios
                            cells += (
                                [f"{row.milliseconds[other]:.2f}", f"{row.ratios[other]:.2f}"] if there else ["", ""]
                            )
                        print(f"| {' | '.join(cells)} | {row.off:.1e} |", flush=True)


if __name__ == "__main__":
    main()
