"""`tessera models convert`: a model folder for Ascend, its `.om` files made by ATC where ATC is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from tessera.engine.backends.ascend.omfile import check_om_file
from tessera.engine.errors import ModelError
from tessera.engine.graph.protos import computes_in_integers
from tessera.engine.quantize.calibration import Calibration
from tessera.engine.quantize.files import write_whole
from tessera.models.ascend.aipp import aipp_configuration
from tessera.models.ascend.commands import (
    Command,
    GraphInput,
    baseline_command,
    check_gears,
    optimised_command,
    quantise_command,
    script,
)
from tessera.models.ascend.graphs import for_atc, with_own_convolution
from tessera.models.ascend.operators import check_operator_package
from tessera.models.ascend.provenance import Run, write_record
from tessera.models.formats.weights import file_sha256
from tessera.models.package import DESCRIPTION, LABELS, Package, read_package
from tessera.models.preprocessing.photos import find_photos, read_photos
from tessera.models.source import float_model
from tessera.models.staging import check_folder, place, staging_folder
from tessera.wording import counted

Progress = Callable[[str, float], None]

GEARS = (1, 2, 4, 8, 16)

_MODEL, _OWN_MODEL, _AIPP, _SCRIPT, _DATA = (
    "model.onnx",
    "model-own-convolution.onnx",
    "aipp.cfg",
    "convert.sh",
    "photos",
)
_SOC = re.compile(r"Ascend\d[0-9A-Za-z_]+")
_CALIBRATION_BATCH = 16
_CALIBRATION_PHOTOS = 128
_LINES_KEPT = 15


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert for.

    Attributes:
        soc: the chip as ATC names it: "Ascend" and the name that `npu-smi info` shows.
        gears: batch sizes that the .om files take.
        photos: folder of photos for AMCT; given, the optimised variant is int8.
        operators: folder of the installed operator package with our own convolution; given, the optimised variant
            uses it.
    """

    soc: str
    gears: tuple[int, ...] = GEARS
    photos: Path | None = None
    operators: Path | None = None


@dataclass(frozen=True)
class Conversion:
    """What came of it.

    Attributes:
        folder: the model folder.
        commands: the command lines, in order.
        missing: tools that are not installed here; when there are any, the .om files are still to be made, by the
            `convert.sh` in the folder.
    """

    folder: Path
    commands: tuple[Command, ...]
    missing: tuple[str, ...]


def convert_model(
    package: Package, into: Path, options: ConvertOptions, progress: Progress | None = None
) -> Conversion:
    """Convert a model for an Ascend chip; the folder `into/NAME-SOC` appears whole or not at all.

    Args:
        package: the model; its graph must be a float one.
        into: folder of model folders.
        options: chip, batch sizes, and what the optimised variant is to be.
        progress: called as `progress(stage, fraction)`.

    Raises:
        ModelError: the options contradict each other, the model cannot be converted, a tool failed (the message ends
            with what it said), or what it wrote is no whole .om file.
    """
    report = progress or (lambda stage, fraction: None)
    _check(options)
    target = into / f"{package.name}-{options.soc}"
    _check_target(target)
    check_folder(into)
    with staging_folder(into, target.name) as folder:
        report("writing the graph", 0.0)
        commands = _prepare(package, folder, options)
        inputs = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
        missing = tuple(dict.fromkeys(c.tool for c in commands if shutil.which(c.tool) is None))
        if not missing:
            runs = []
            for number, command in enumerate(commands):
                report(command.title, number / len(commands))
                runs.append(_run(command, folder))
            reports = {c.produces: _ask(folder, c.produces) for c in commands if c.tool == "atc"}
            _tidy(folder, {*inputs, _DATA, *(command.produces for command in commands)})
            write_record(folder, options.soc, package.source, inputs, runs, reports)
        if target.exists():
            shutil.rmtree(target)
        place(folder, target)
    report("converted", 1.0)
    return Conversion(target, commands, missing)


def _check(options: ConvertOptions) -> None:
    if not _SOC.fullmatch(options.soc):
        raise ModelError(
            f"'{options.soc}' is no chip that ATC knows: write 'Ascend' and the name that `npu-smi info` shows, "
            "such as Ascend310B1 or Ascend310P3."
        )
    check_gears(options.gears)
    if options.operators is not None:
        if options.photos is not None:
            raise ModelError("The own convolution computes in fp16; ask for it or for int8 with AMCT, not for both.")
        check_operator_package(options.operators, options.soc)
    if options.photos is not None:
        find_photos(options.photos)


def _check_target(target: Path) -> None:
    if not target.exists():
        return
    # What an earlier call without ATC has prepared is made anew; what holds a result is not touched.
    if not (target / _SCRIPT).is_file() or any(target.glob("*.om")):
        raise ModelError(f"{target} exists. Remove it to convert again, or name another folder with --into.")


def _prepare(package: Package, folder: Path, options: ConvertOptions) -> tuple[Command, ...]:
    """Write everything that the tools read, and the folder's own description."""
    model = float_model(package)
    if computes_in_integers(model):
        raise ModelError(f"{package.name} is quantised already. ATC needs its float graph; convert that one.")
    model = for_atc(model)
    _save(model, folder / _MODEL)
    write_whole(folder / _AIPP, aipp_configuration(package.preprocessing).encode())
    write_whole(folder / LABELS, "".join(f"{label}\n" for label in package.labels).encode())
    write_whole(folder / DESCRIPTION, _description(package, options).encode())
    if package.calibration.is_file():
        # Its ranges are those of the same graph, which lies in another file now.
        calibration = Calibration.load(package.calibration)
        replace(calibration, model_sha256=file_sha256(folder / _MODEL)).save(folder / package.calibration.name)
    constants = {tensor.name for tensor in model.graph.initializer}
    name = next(value.name for value in model.graph.input if value.name not in constants)
    graph = GraphInput(name, package.preprocessing.size, check_gears(options.gears))
    commands = [baseline_command(options.soc, _MODEL, graph, "baseline"), *_optimised(package, folder, options, graph)]
    write_whole(folder / _SCRIPT, script(commands).encode())
    (folder / _SCRIPT).chmod(0o755)
    read_package(folder)
    return tuple(commands)


def _optimised(package: Package, folder: Path, options: ConvertOptions, graph: GraphInput) -> list[Command]:
    source, before, operators = _MODEL, [], None
    if options.photos is not None:
        batches = _write_photos(package, options.photos, folder / _DATA)
        before = [quantise_command(_MODEL, graph, _DATA, batches, _CALIBRATION_BATCH, "int8")]
        source = before[0].produces
    if options.operators is not None:
        source, operators = _OWN_MODEL, str(options.operators.resolve())
        _save(with_own_convolution(float_model(package)), folder / source)
    int8 = options.photos is not None
    last = optimised_command(options.soc, source, graph, "optimised", aipp=_AIPP, int8=int8, operators=operators)
    return [*before, last]


def _save(model: onnx.ModelProto, path: Path) -> None:
    write_whole(path, model.SerializeToString(deterministic=True))


def _write_photos(package: Package, photos: Path, folder: Path) -> int:
    """Files of one full batch each, float32 [16, 3, H, W], as AMCT reads them; returns their number."""
    files = find_photos(photos, _CALIBRATION_PHOTOS)
    if len(files) < _CALIBRATION_BATCH:
        raise ModelError(f"{photos} has {counted(len(files), 'photo')}; AMCT needs at least {_CALIBRATION_BATCH}.")
    whole = files[: len(files) // _CALIBRATION_BATCH * _CALIBRATION_BATCH]
    folder.mkdir()
    for number, batch in enumerate(read_photos(whole, package.preprocessing, _CALIBRATION_BATCH)):
        write_whole(folder / f"{number:03}.bin", np.ascontiguousarray(batch, "<f4").tobytes())
    return len(whole) // _CALIBRATION_BATCH


def _description(package: Package, options: ConvertOptions) -> str:
    """The text of model.toml. JSON texts, numbers and lists of numbers are TOML ones as well."""
    preprocessing = package.preprocessing
    lines = [
        f"name = {json.dumps(package.name)}",
        f"description = {json.dumps(package.description)}",
        f"onnx = {json.dumps(_MODEL)}",
        f"labels = {json.dumps(LABELS)}",
        f"calibration = {json.dumps(package.calibration.name)}",
        "",
        "[preprocessing]",
        f"size = {json.dumps(preprocessing.size)}",
        f"resize = {preprocessing.resize}",
        f"mean = {list(preprocessing.mean)}",
        f"std = {list(preprocessing.std)}",
        f"interpolation = {json.dumps(preprocessing.interpolation)}",
        "",
        "[ascend]",
        f"soc = {json.dumps(options.soc)}",
        'baseline = "baseline.om"',
        'optimised = "optimised.om"',
        f'optimised_precision = "{"fp16" if options.photos is None else "int8"}"',
    ]
    return "\n".join(lines) + "\n"


def _run(command: Command, folder: Path) -> Run:
    started = time.monotonic()
    done = _call(command.arguments, folder, command.environment())
    said = _end(done.stdout)
    if done.returncode != 0:
        raise ModelError(f"{command.tool} failed with exit code {done.returncode}.\n  {command}\nIt said:\n{said}")
    produced = folder / command.produces
    if not produced.is_file():
        raise ModelError(f"{command.tool} ended well but wrote no {command.produces}.\n  {command}\nIt said:\n{said}")
    if command.tool == "atc":
        check_om_file(produced)
    return Run(command, time.monotonic() - started, said)


def _ask(folder: Path, om: str) -> str:
    """What ATC says of an .om file; empty where it does not know how to."""
    done = _call(("atc", "--mode=6", f"--om={om}"), folder, None)
    return _end(done.stdout, 60) if done.returncode == 0 else ""


def _call(
    arguments: Sequence[str], folder: Path, environment: dict[str, str] | None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            arguments,
            cwd=folder,
            env=environment if environment is not None else dict(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ModelError(f"Cannot start {arguments[0]}: {error.strerror or error}.") from error


def _end(output: str, lines: int = _LINES_KEPT) -> str:
    return "\n".join(output.strip().splitlines()[-lines:])


def _tidy(folder: Path, kept: set[str]) -> None:
    """Remove what the tools leave behind: kernel_meta, fusion_result.json, logs."""
    for entry in folder.iterdir():
        if entry.name in kept:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
