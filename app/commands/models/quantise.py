"""Quantise a model to int8 from photos like those it will see, and prove that it is still right.

The tensors whose eight bits hurt most, and the layers that read them, are kept in bf16 or fp32 until the result meets
the gate on photos that nothing was fitted to. From its next start on, the service builds the optimised variant from
this; `tessera models reset` undoes it. A result that fails the gate is put aside and used only after --accept.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tessera.app.commands.progress import ProgressDisplay
from tessera.app.errors import StartupError
from tessera.app.heap import give_back_large_blocks
from tessera.app.served.selection import cache_folder, find_model, shortest_name
from tessera.app.settings import Settings
from tessera.engine.quantize import Gate, Report
from tessera.engine.quantize.files import check_target, write_whole
from tessera.models.calibrations import CalibrationFiles
from tessera.models.package import read_package
from tessera.models.preprocessing.photos import find_photos
from tessera.models.quantise import quantise_model
from tessera.wording import counted

_WIDTH = 160
_SHOWN = 8


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print what was chosen; 1 when the gate is not met."""
    if arguments.photos is None:
        return _accept(find_model(settings), arguments, settings)
    if arguments.report is not None:
        check_target(arguments.report)
    find_photos(arguments.photos, 1)  # before a model file is imported
    give_back_large_blocks()
    with ProgressDisplay() as display:
        folder = find_model(settings, display)
        path, report = quantise_model(
            folder,
            arguments.photos,
            cache=settings.cache_dir,
            into_folder=arguments.into_folder,
            accept=arguments.accept,
            size=next(iter(settings.image_sizes), None),
            limit=arguments.limit,
            method=arguments.method,
            bias_correction=not arguments.no_bias_correction,
            gate=_gate(arguments),
            fallback=arguments.fallback,
            equalisation=arguments.equalise,
            threads=settings.threads,
            progress=display,
        )
    if arguments.report is not None:
        write_whole(arguments.report, report.to_json().encode())
    _print(report)
    print(f"\ncalibration: {path}")
    verdict = report.verdict
    if verdict.met or arguments.accept:
        _tell(folder, settings)
    if verdict.met:
        return 0
    print(
        f"tessera: the gate is not met: {verdict}. Use more photos, photos like those the model will see, or a lower "
        "gate.",
        file=sys.stderr,
    )
    if arguments.accept:
        return 0
    command = _command(["quantise", "--accept", "--model-path"], folder, settings)
    print(f"tessera: nothing has changed for the service. Use it all the same with: {command}", file=sys.stderr)
    return 1


def _gate(arguments: argparse.Namespace) -> Gate:
    asked = {"sqnr": arguments.min_sqnr, "agreement": arguments.min_agreement}
    return Gate(**{name: value for name, value in asked.items() if value is not None})


def _accept(folder: Path, arguments: argparse.Namespace, settings: Settings) -> int:
    """Use the calibration that failed its gate."""
    if not arguments.accept:
        raise StartupError("Name a folder of photos to quantise with, or accept the last result with --accept.")
    files = CalibrationFiles.of(read_package(folder).at(*settings.image_sizes[:1]), cache_folder(settings))
    print(f"calibration: {files.accept(into_folder=arguments.into_folder)}")
    _tell(folder, settings)
    return 0


def _tell(folder: Path, settings: Settings) -> None:
    """Print what is different from now on, for whom, and the way back."""
    name = read_package(folder).name
    print(
        f"From its next start or reload on, the service builds the optimised variant of {name} from it, as does every "
        f"command with the cache folder {cache_folder(settings)}."
    )
    print(f"Undo it with: {_command(['reset'], folder, settings)}")


def _command(words: list[str], folder: Path, settings: Settings) -> str:
    """A command on the same model at the same size with the same cache."""
    cache = [] if settings.cache_dir is None else ["--cache-dir", str(settings.cache_dir)]
    size = [] if settings.size is None else ["--size", settings.size]
    return shlex.join(["tessera", "models", *words, shortest_name(folder, settings), *size, *cache])


def _print(report: Report) -> None:
    console = Console(width=_WIDTH)
    console.print(f"{counted(report.images, 'photo')} in {report.seconds:.1f} s", highlight=False)
    last = report.rounds[-1]
    if last.sqnr is not None and last.agreement is not None:
        by_chance = ", fewer only by chance" if report.met and last.agreement < report.gate.agreement else ""
        console.print(
            f"gate: SQNR {last.sqnr:.1f} dB (asked {report.gate.sqnr:g}), agreement {last.agreement:.1%} "
            f"(asked {report.gate.agreement:.1%}{by_chance}), on {counted(report.checked, 'photo')} "
            "that nothing was fitted to",
            highlight=False,
        )
    if report.choices:
        methods = sorted({choice.method for choice in report.choices})
        counts = [f"{sum(choice.method == name for choice in report.choices)} by {name}" for name in methods]
        console.print(f"ranges of {counted(len(report.choices), 'tensor')}: {', '.join(counts)}", highlight=False)
    if report.equalised:
        console.print(f"equalised: {', '.join(report.equalised)}", highlight=False)
    if report.milliseconds and report.rates is not None:
        console.print(
            f"in floating point: {counted(len(report.milliseconds), 'tensor')}, which cost an image at least "
            f"{sum(report.milliseconds.values()):.2f} ms on one core of this class of CPUs ({report.rates.origin})",
            highlight=False,
        )
    if report.sensitivities:
        console.print(_sensitivities(report))


def _sensitivities(report: Report) -> Table:
    kept = set(report.rounds[-1].floats)
    shown = [entry for entry in report.sensitivities if entry.tensor in kept]
    shown += [entry for entry in report.sensitivities if entry.tensor not in kept][:_SHOWN]
    table = Table(
        box=box.MARKDOWN, title="What eight bits of each tensor cost at the network's end", title_justify="left"
    )
    table.add_column("tensor")
    table.add_column("SQNR", justify="right")
    table.add_column("of all MACs", justify="right")
    table.add_column("kept as")
    table.add_column("costs", justify="right")
    table.add_column("layers that read it")
    for entry in shown:
        cost = report.milliseconds.get(entry.tensor)
        kind, price = ("int8", "") if cost is None else ("float", f"{cost:.2f} ms")
        layers = ", ".join(entry.layers)
        table.add_row(entry.tensor, f"{entry.decibels:.1f} dB", f"{entry.share:.1%}", kind, price, layers)
    return table
