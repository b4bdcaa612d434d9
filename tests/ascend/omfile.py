"""Writes .om files for the double: the role of ATC. CANN's file header, a plan in lines of text, then the weights.

soc NAME                                    the chip
input NAME TYPE FORMAT d0 d1 d2             of one image
output NAME TYPE classes
gears 1 2 4 ...  |  batch N                 dynamic or fixed batch size
aipp mean mean mean scale scale scale       static AIPP: (pixel - mean) * scale, for uint8 inputs
work BYTES                                  work memory
tensors COUNT RESULT                        tensor 0 is the image
OP source target residual C H W  outC outH outW  kh kw sh sw top left relu weight_at bias_at
weights TYPE COUNT
end
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import read_model
from tessera.engine.normalisation import Normalisation

SOC = "Ascend310B1"
GEARS = (1, 2, 4, 8, 16)


def write_om(
    onnx_path: Path,
    om_path: Path,
    *,
    gears: Sequence[int] = GEARS,
    batch: int | None = None,
    pixels: Normalisation | None = None,
    input_type: str = "float32",
    output_type: str = "float32",
    weights: str = "float16",
    work_bytes: int = 4096,
) -> Path:
    """Converts an ONNX graph.

    Args:
        onnx_path: a classifier of convolutions, pools and residual additions.
        om_path: where to write.
        gears: dynamic batch sizes.
        batch: a fixed batch size instead of gears.
        pixels: static AIPP with this normalisation: the input becomes uint8 [N, H, W, C].
        input_type: "float32" or "float16", without AIPP.
        output_type: "float32" or "float16".
        weights: "float32" or "float16".
        work_bytes: what CANN would need beside the weights.
    """
    graph = lower(read_model(onnx_path))
    plan = _Plan(graph)
    _, channels, height, width = graph.values[graph.inputs[0]].shape
    name = graph.inputs[0]
    lines = [f"soc {SOC}"]
    if pixels is None:
        lines.append(f"input {name} {input_type} NCHW {channels} {height} {width}")
    else:
        lines += [f"input {name} uint8 NHWC {height} {width} {channels}", _aipp(pixels)]
    lines.append(f"output {graph.outputs[0]} {output_type} {graph.values[graph.outputs[0]].shape[1]}")
    lines.append(f"batch {batch}" if batch is not None else "gears " + " ".join(map(str, gears)))
    lines += [f"work {work_bytes}", f"tensors {len(plan.numbers)} {plan.number(graph.outputs[0])}", *plan.lines]
    parameters = np.concatenate(plan.parameters).astype(weights)
    lines += [f"weights {weights} {len(parameters)}", "end", ""]
    text = "\n".join(lines).encode()
    body = text + bytes(-len(text) % 64) + parameters.tobytes()
    om_path.write_bytes(header(len(body)) + body)
    return om_path


def header(length: int) -> bytes:
    """The 256 bytes of CANN's `ModelFileHeader`."""
    made = bytearray(256)
    struct.pack_into("<4sII", made, 0, b"IMOD", 256, 0x10000000)
    struct.pack_into("<I", made, 76, length)
    struct.pack_into("<Q", made, 184, length)
    return bytes(made)


def half_normalisation(normalisation: Normalisation) -> Normalisation:
    """What AIPP makes of a normalisation: its means and scales are float16."""
    mean, scale = _aipp_values(normalisation)
    return Normalisation(tuple(m / 255 for m in mean), tuple(1 / (255 * s) for s in scale))


def _aipp_values(normalisation: Normalisation) -> tuple[list[float], list[float]]:
    mean = [float(np.float16(255 * value)) for value in normalisation.mean]
    scale = [float(np.float16(1 / (255 * value))) for value in normalisation.std]
    return mean, scale


def _aipp(normalisation: Normalisation) -> str:
    mean, scale = _aipp_values(normalisation)
    return "aipp " + " ".join(f"{value:.9g}" for value in (*mean, *scale))


class _Plan:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.numbers = {graph.inputs[0]: 0}
        self.lines: list[str] = []
        self.parameters: list[np.ndarray[Any, Any]] = []
        self._at = 0
        for node in graph.nodes:
            self._add(node)

    def number(self, value: str) -> int:
        return self.numbers[value]

    def _add(self, node: Node) -> None:
        if node.op in ("Flatten", "Reshape"):  # of [N, C, 1, 1]: the same numbers
            self.numbers[node.output] = self.numbers[node.inputs[0]]
            return
        source, target = self._graph.values[node.inputs[0]], self._graph.values[node.output]
        sizes = [*source.shape[1:], *target.shape[1:]]
        self.numbers[node.output] = max(self.numbers.values()) + 1
        ends = [self.numbers[node.inputs[0]], self.numbers[node.output]]
        if node.op == "GlobalAveragePool":
            self._line("avgpool", *ends, -1, *sizes, *source.shape[2:], 1, 1, 0, 0, 0, 0, 0)
            return
        assert node.attrs["dilations"] == (1, 1)
        assert node.attrs.get("groups", 1) == 1
        window = [*node.attrs["kernel"], *node.attrs["strides"], *node.attrs["pads"][:2]]
        if node.op == "MaxPool":
            self._line("maxpool", *ends, -1, *sizes, *window, 0, 0, 0)
            return
        assert node.op == "Conv", node.describe()
        weights = self._graph.constants[node.inputs[1]]
        bias = self._graph.constants[node.inputs[2]] if node.inputs[2] else np.zeros(len(weights), np.float32)
        residual = self.numbers[node.inputs[3]] if node.inputs[3] else -1
        relu = int(node.attrs["clip"][0] == 0)
        self._line("conv", *ends, residual, *sizes, *window, relu, self._store(weights), self._store(bias))

    def _line(self, *fields: object) -> None:
        self.lines.append(" ".join(map(str, fields)))

    def _store(self, array: np.ndarray[Any, Any]) -> int:
        self.parameters.append(array.ravel())
        self._at += array.size
        return self._at - array.size
