"""Set the blocks of a model's weights to zero that its answers need least, and prove that they are still right.

What comes of it is another model, in standard ONNX; our engine leaves out blocks of zeros. The model that was given
stays as it is, and nothing is written where the gate does not hold.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from tessera.app.commands.models.places import destination, tell
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.errors import StartupError
from tessera.app.heap import give_back_large_blocks
from tessera.app.served.selection import find_model, shortest_name
from tessera.app.settings import Settings
from tessera.engine.pruning.pipeline import GATE
from tessera.engine.pruning.report import LayerReport, PruningReport
from tessera.engine.pruning.sensitivity import PROBED
from tessera.engine.quantize.report import Gate
from tessera.engine.quantize.settlement.sensitivity import decibels
from tessera.models.fine_tuning import FineTuning, check_torch
from tessera.models.preprocessing.photos import find_photos
from tessera.models.prune import prune_model
from tessera.wording import counted

_WIDTH = 160
_SHOWN = 8


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print what was pruned; 1 when the gate is not met."""
    tuning = _tuning(arguments, settings)
    find_photos(arguments.photos, 1)  # before a model file is imported
    give_back_large_blocks()
    with ProgressDisplay() as display:
        folder = find_model(settings, display)
        package, report = prune_model(
            folder,
            arguments.photos,
            destination(arguments, settings),
            name=arguments.name,
            share=arguments.share,
            gate=_gate(arguments),
            fine_tuning=tuning,
            limit=arguments.limit,
            threads=settings.threads,
            progress=display,
        )
    _print(report)
    if package is None:
        print(f"tessera: {_refusal(report, tuned=tuning is not None)}", file=sys.stderr)
        return 1
    tell(package)
    place = shlex.quote(str(package.folder))
    print(f"Quantise it with: tessera models quantise --model-path {place} {shlex.quote(str(arguments.photos))}")
    print(f"{shortest_name(folder, settings)} is as it was. Undo it with: tessera models remove {place}")
    return 0


def _tuning(arguments: argparse.Namespace, settings: Settings) -> FineTuning | None:
    if arguments.fine_tune is None:
        if arguments.epochs is not None:
            raise StartupError("--epochs says how long --fine-tune trains. Give both, or neither.")
        return None
    if arguments.share is None:
        raise StartupError("--fine-tune trains one network for long. Say how much of it is pruned, as in --share 0.3.")
    check_torch()
    photos = find_photos(arguments.fine_tune)
    epochs = FineTuning.epochs if arguments.epochs is None else arguments.epochs
    return FineTuning(photos, epochs, threads=settings.threads)


def _gate(arguments: argparse.Namespace) -> Gate:
    asked = {"sqnr": arguments.min_sqnr, "agreement": arguments.min_agreement}
    given = {name: value for name, value in asked.items() if value is not None}
    return Gate(**{"sqnr": GATE.sqnr, "agreement": GATE.agreement, **given})


def _refusal(report: PruningReport, *, tuned: bool) -> str:
    kept, gate = report.kept, report.gate
    noise = f", SQNR {kept.sqnr:.1f} dB where {gate.sqnr:g} dB was asked" if gate.sqnr > GATE.sqnr else ""
    advice = "Prune a smaller --share" if len(report.attempts) == 1 else "Use more photos"
    advice += ", or set a lower gate." if tuned else ", train with --fine-tune, or set a lower gate."
    return (
        f"the gate is not met: with {kept.share:.0%} of the multiplications in blocks left out, agreement "
        f"{kept.agreement:.1%} where {gate.agreement:.1%} was asked{noise}, on {counted(report.checked, 'photo')}. "
        f"Nothing was written. {advice}"
    )


def _print(report: PruningReport) -> None:
    console = Console(width=_WIDTH)
    kept, gate = report.kept, report.gate
    photos = counted(report.settled + report.checked, "photo")
    console.print(f"{photos} in {report.seconds:.1f} s", highlight=False)
    if len(report.attempts) > 1:
        tried = [f"{attempt.share:.1%} ({attempt.agreement:.1%})" for attempt in report.attempts]
        console.print(f"shares tried (agreement): {', '.join(tried)}", highlight=False)
    console.print(_layers(report.layers))
    chance = ", fewer only by chance" if kept.met and kept.agreement < gate.agreement else ""
    console.print(
        f"gate: agreement {kept.agreement:.1%} (asked {gate.agreement:.1%}{chance}), SQNR {kept.sqnr:.1f} dB, "
        f"on {counted(report.checked, 'photo')} that nothing was fitted to",
        highlight=False,
    )
    dense, pruned = report.milliseconds
    console.print(
        f"zeros: {report.blocks:.1%} of all blocks, with {report.saved:.1%} of the multiplications in blocks; "
        f"here an image by itself takes {pruned:.2f} ms instead of {dense:.2f} in fp32",
        highlight=False,
    )


def _layers(layers: list[LayerReport]) -> Table:
    most = sorted(layers, key=lambda layer: -layer.zeros * layer.share)[:_SHOWN]
    table = Table(
        box=box.MARKDOWN,
        title=f"Where most was saved, of {counted(len(layers), 'layer')} with blocks",
        title_justify="left",
    )
    table.add_column("layer")
    alone = [f"SQNR, {share:.0%} of it alone" for share in PROBED]
    for heading in ("blocks that are zeros", "of all multiplications", *alone):
        table.add_column(heading, justify="right")
    for layer in most:
        noise = [f"{decibels(noise):.1f} dB" for noise in layer.noise]
        table.add_row(layer.name, f"{layer.zeros:.1%}", f"{layer.share:.1%}", *noise)
    return table
