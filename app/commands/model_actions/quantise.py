"""Quantise a model to int8 from photos like those it will see, and prove that it is still right.

The tensors whose eight bits hurt most, and the layers that read them, are kept in bf16 or fp32 until the result meets
the gate on photos that nothing was fitted to. The next start of the service builds the optimised variant from this.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from app.commands.flags import MODEL_SETTINGS, add_settings_flags
from app.commands.progress import ProgressDisplay
from app.errors import StartupError
from app.loading import find_model
from app.settings import Settings
from engine.quantize import Gate, Report
from engine.quantize.files import write_whole
from models.quantise import quantise_model
from models.registry import BUNDLED

HELP = "quantise a model to int8, with an accuracy gate"

_WIDTH = 160
_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the action's arguments."""
    default = Gate()
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of photos; 100 to 500 do well")
    parser.add_argument(
        "--limit", metavar="N", type=_positive, help="most photos to use, spread evenly over the folder"
    )
    parser.add_argument(
        "--method",
        choices=("auto", "mse", "percentile", "entropy", "max"),
        default="auto",
        help="how activation ranges are chosen (default auto: each by the error it causes)",
    )
    parser.add_argument(
        "--min-sqnr", metavar="DB", type=float, default=default.sqnr, help=f"gate (default {default.sqnr:g} dB)"
    )
    parser.add_argument(
        "--min-agreement",
        metavar="SHARE",
        type=float,
        default=default.agreement,
        help=f"gate: least share of photos with the same first class (default {default.agreement})",
    )
    parser.add_argument(
        "--fallback",
        choices=("bf16", "fp32", "none"),
        default="bf16",
        help="precision of what is kept out of int8 until the gate holds (default bf16); none: int8 everywhere",
    )
    parser.add_argument("--equalise", action="store_true", help="cross-layer equalisation where it lowers the error")
    parser.add_argument("--no-bias-correction", action="store_true", help="leave biases as they are")
    parser.add_argument(
        "--into-folder", action="store_true", help="write calibration.json into the model folder, not into the cache"
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the whole report there, as JSON")
    add_settings_flags(parser, (*MODEL_SETTINGS, "threads"))


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print what was chosen; 1 when the gate is not met."""
    if arguments.report is not None and not arguments.report.parent.is_dir():
        raise StartupError(f"There is no folder {arguments.report.parent} to write {arguments.report.name} into.")
    folder = find_model(settings) or BUNDLED
    with ProgressDisplay() as display:
        path, report = quantise_model(
            folder,
            arguments.photos,
            cache=settings.cache_dir,
            into_folder=arguments.into_folder,
            limit=arguments.limit,
            method=arguments.method,
            bias_correction=not arguments.no_bias_correction,
            gate=Gate(arguments.min_sqnr, arguments.min_agreement),
            fallback=arguments.fallback,
            equalisation=arguments.equalise,
            threads=settings.threads,
            progress=display,
        )
    if arguments.report is not None:
        write_whole(arguments.report, report.to_json().encode())
    _print(report)
    print(f"\ncalibration: {path}")
    if not report.met:
        print(
            "tessera: the gate is not met. Use more photos, photos like those the model will see, or a lower gate.",
            file=sys.stderr,
        )
    return 0 if report.met else 1


def _print(report: Report) -> None:
    console = Console(width=_WIDTH)
    console.print(f"{report.images} photos in {report.seconds:.1f} s", highlight=False)
    last = report.rounds[-1]
    if last.sqnr is not None and last.agreement is not None:
        console.print(
            f"gate: SQNR {last.sqnr:.1f} dB (asked {report.gate.sqnr:g}), agreement {last.agreement:.1%} "
            f"(asked {report.gate.agreement:.1%}), on {report.checked} photos that nothing was fitted to",
            highlight=False,
        )
    if report.choices:
        methods = sorted({choice.method for choice in report.choices})
        counts = [f"{sum(choice.method == name for choice in report.choices)} by {name}" for name in methods]
        console.print(f"ranges of {len(report.choices)} tensors: {', '.join(counts)}", highlight=False)
    if report.equalised:
        console.print(f"equalised: {', '.join(report.equalised)}", highlight=False)
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
    table.add_column("layers that read it")
    for entry in shown:
        name = "float" if entry.tensor in kept else "int8"
        layers = ", ".join(entry.layers)
        table.add_row(entry.tensor, f"{entry.decibels:.1f} dB", f"{entry.share:.1%}", name, layers)
    return table


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
