"""The command lines of CANN's tools, as data: what is run, what is printed, and what a colleague can paste.

Flags from the ATC reference of CANN 6.0 to 9.x and, for AMCT, from ResNet-50 of Ascend's ModelZoo.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tessera.engine.errors import ModelError
from tessera.models.preprocessing.image_size import Size, sides

_ONNX = "5"
_MOST_GEARS = 100
_LARGEST_GEAR = 2048


@dataclass(frozen=True)
class Command:
    """One call of a tool.

    Attributes:
        title: what it makes, for people.
        arguments: the words, the tool's name first; file names are relative to the conversion's folder.
        produces: the file that is there afterwards.
        variables: environment variables that it needs besides those of CANN's set_env.sh.
    """

    title: str
    arguments: tuple[str, ...]
    produces: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def tool(self) -> str:
        """Name of the program."""
        return self.arguments[0]

    def __str__(self) -> str:
        """As a shell line."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join([*assignments, shlex.join(self.arguments)])

    def environment(self) -> dict[str, str]:
        """This process's environment with the command's variables; search paths are put in front of what is set."""
        added = dict(self.variables)
        for name in added.keys() & os.environ.keys():
            if name.endswith("_PATH"):
                added[name] += os.pathsep + os.environ[name]
        return {**os.environ, **added}


@dataclass(frozen=True)
class GraphInput:
    """The input of the graph that is converted.

    Attributes:
        name: as in the ONNX file.
        size: height and width in pixels; one number where they are equal.
        gears: batch sizes that the .om file takes; a single one makes its shape static.
    """

    name: str
    size: Size
    gears: tuple[int, ...]

    def shape(self, batch: int) -> str:
        """In the form `name:N,C,H,W` that ATC and AMCT take."""
        height, width = sides(self.size)
        return f"{self.name}:{batch},3,{height},{width}"

    def flags(self) -> tuple[str, ...]:
        """ATC's flags for it."""
        if len(self.gears) == 1:
            return (f"--input_shape={self.shape(self.gears[0])}",)
        gears = ",".join(str(gear) for gear in self.gears)
        return (f"--input_shape={self.shape(-1)}", f"--dynamic_batch_size={gears}")


def check_gears(gears: Sequence[int]) -> tuple[int, ...]:
    """Batch sizes in ascending order, as ATC takes them.

    Raises:
        ModelError: none, more than 100, one outside 1 to 2048, or one twice.
    """
    ordered = tuple(sorted(gears))
    if not 1 <= len(ordered) <= _MOST_GEARS or len(set(ordered)) != len(ordered):
        raise ModelError(f"ATC takes 1 to {_MOST_GEARS} different batch sizes, not {list(gears)}.")
    if not all(1 <= gear <= _LARGEST_GEAR for gear in ordered):
        raise ModelError(f"Batch sizes must be from 1 to {_LARGEST_GEAR}, not {list(gears)}.")
    return ordered


def baseline_command(soc: str, model: str, graph: GraphInput, output: str) -> Command:
    """The stock conversion: fp32 NCHW in, every convolution in fp16, which is ATC's default, written out here."""
    arguments = (*_common(soc, model, graph, output), "--precision_mode=force_fp16")
    return Command("baseline: the stock graph in fp16", arguments, f"{output}.om")


def optimised_command(
    soc: str, model: str, graph: GraphInput, output: str, *, aipp: str, int8: bool, operators: str | None = None
) -> Command:
    """The optimised conversion: uint8 pixels through static AIPP, and the stem in the layout for few channels.

    Args:
        soc: the chip.
        model: the ONNX file; what AMCT deployed where `int8`.
        graph: its input.
        output: name of the file to write, without `.om`.
        aipp: file with the AIPP configuration.
        int8: whether the graph is quantised; its precision is then the graph's own.
        operators: folder of an installed operator package that the graph's operators need.
    """
    arguments = (*_common(soc, model, graph, output), f"--insert_op_conf={aipp}", "--enable_small_channel=1")
    if not int8:
        arguments += ("--precision_mode=force_fp16",)
    title = f"optimised: AIPP, small-channel stem, {'int8' if int8 else 'fp16'}"
    if operators is None:
        return Command(title, arguments, f"{output}.om")
    variables = {"ASCEND_CUSTOM_OPP_PATH": operators}
    return Command(f"{title}, own convolution", arguments, f"{output}.om", variables)


def quantise_command(model: str, graph: GraphInput, data: str, batches: int, batch: int, output: str) -> Command:
    """AMCT's calibration of the float graph over files of float32 images.

    Args:
        model: the ONNX file.
        graph: its input.
        data: folder with one file of `batch` images each.
        batches: number of those files.
        batch: images per file.
        output: beginning of the names of what it writes.
    """
    arguments = (
        "amct_onnx",
        "calibration",
        f"--model={model}",
        f"--save_path={output}",
        f"--input_shape={graph.shape(batch)}",
        f"--data_dir={data}",
        "--data_types=float32",
        f"--batch_num={batches}",
    )
    return Command("int8: calibration with AMCT", arguments, f"{output}_deploy_model.onnx")


def _common(soc: str, model: str, graph: GraphInput, output: str) -> tuple[str, ...]:
    return (
        "atc",
        f"--model={model}",
        f"--framework={_ONNX}",
        f"--output={output}",
        f"--soc_version={soc}",
        "--input_format=NCHW",
        *graph.flags(),
        "--output_type=FP32",
        "--log=error",
    )


def script(commands: Sequence[Command]) -> str:
    """A shell script that runs the commands where it lies."""
    lines = [
        "#!/bin/sh",
        "# Makes the .om files of this folder. Needs CANN: source its set_env.sh first.",
        'set -e\ncd "$(dirname "$0")"',
    ]
    for command in commands:
        lines += ["", f"# {command.title}"]
        # Put in front of what is set, as when Tessera runs it.
        lines += [
            f'export {name}={shlex.quote(value)}"${{{name}:+:${name}}}"' for name, value in command.variables.items()
        ]
        lines.append(shlex.join(command.arguments))
    return "\n".join([*lines, ""])
