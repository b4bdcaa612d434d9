"""Networks of other families than ResNet-50, with random weights: our engine and ONNX Runtime, in turns.

.venv/bin/python -m benchmarks.families                     # all of NAMES, batch 1 and 16
.venv/bin/python -m benchmarks.families --sizes 160,224x320 --batches 1,16,64 --only ResNet-50
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from tessera import engine
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


NAMES = ("MobileNetV2", "MobileNetV3", "EfficientNet-B0", "SE-ResNet-50", "ResNet-50")


def compare(
    path: Path, batches: Sequence[int], rounds: int, threads: int
) -> list[tuple[int, float, float, float, float]]:
    """Per batch: milliseconds an image of ours and of ONNX Runtime, median ratio, largest difference of answers."""
    rows = []
    with (
        engine.load(path, backend="cpu", threads=threads) as ours,
        engine.load(path, backend="onnxruntime", threads=threads) as theirs,
    ):
        sizes = [size or 1 for size in ours.describe().inputs[0].shape[1:]]
        for batch in batches:
            images = np.random.default_rng(0).normal(0, 1, (batch, *sizes)).astype(np.float32)
            found, wanted = ours.run(images), theirs.run(images)
            off = float(np.abs(found - wanted).max() / np.abs(wanted).max())
            times = np.array(
                [take_turns((ours, theirs), images) for _ in range(rounds if batch < 8 else max(3, rounds // 4))]
            )
            least = times.min(axis=0) / batch * 1e3
            rows.append((batch, float(least[0]), float(least[1]), median(times[:, 1] / times[:, 0]), off))
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
    print("| network | size | precision | batch | ours | ONNX Runtime | ours is faster by | answers differ by |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
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
                    for batch, ours, theirs, ratio, off in compare(path, batches, arguments.rounds, arguments.threads):
                        shown = f"{size[0]}x{size[1]} | {precision} | {batch} | {ours:.2f} | {theirs:.2f}"
                        print(f"| {name} | {shown} | {ratio:.2f} | {off:.1e} |", flush=True)


if __name__ == "__main__":
    main()
