"""Count how often each variant is right, and how far it is from the baseline, over labelled photos.

FOLDER holds one folder per class, named by wnid, label or index, or files whose names begin with the index of their
class and an underscore. With --list, it is what the paths of an ImageNet-style list are relative to.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tessera import engine
from tessera.app.commands.identity import identify
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.errors import StartupError
from tessera.app.figures.accuracy import class_names, decode_with, describe_accuracy
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.served.loading import default_decode_threads, open_configured_model, open_session
from tessera.app.served.selection import read_model_folder
from tessera.app.settings import Settings
from tessera.app.signals import deferred_end
from tessera.engine.quantize.files import check_target, write_whole
from tessera.models.evaluation.gates import Verdict, judge
from tessera.models.evaluation.photos import find_labelled
from tessera.models.evaluation.report import Result, Share, VariantResult, result
from tessera.models.evaluation.runner import Watcher, evaluate
from tessera.models.evaluation.state import StateFile, check_state
from tessera.models.registry import Model
from tessera.wording import counted

_WIDTH = 200


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the table; 1 when no photo could be read, or a gate is missed."""
    if arguments.json is not None:
        check_target(arguments.json)
    if arguments.resume is not None:
        check_state(arguments.resume)
    if not arguments.folder.is_dir():
        raise StartupError(f"There is no folder of photos {arguments.folder}.")
    with ExitStack() as opened:
        display = opened.enter_context(ProgressDisplay())
        package = read_model_folder(settings, display)
        display("looking for photos", 0.0)
        photos = find_labelled(arguments.folder, class_names(package, arguments.wnids), arguments.listed)
        model = open_configured_model(settings, display)
        sessions = {}
        for name, variant in model.variants.items():
            display(f"loading {name}", 0.0)
            sessions[name] = opened.enter_context(open_session(variant, settings))
        infos = {name: session.describe() for name, session in sessions.items()}
        _check(model, infos)
        state = None
        if arguments.resume is not None:
            identity = {**identify(model, infos, settings), "photos": [photos.count, photos.digest]}
            state = opened.enter_context(StateFile(arguments.resume, identity, list(sessions)))
            opened.enter_context(_telling_what_is_kept(state, photos.count, arguments.resume))
        decoder = ImageDecoder(model.preprocessing, max_pixels=settings.max_pixels, decode_scale=settings.decode_scale)
        act_on_signals = opened.enter_context(deferred_end())
        block = evaluate(
            photos,
            sessions,
            decode_with(decoder),
            decoder.shape,
            workers=settings.decode_threads or default_decode_threads(),
            watcher=_watcher(display, photos.count, act_on_signals),
            state=state,
        )
    found = result(block)
    verdicts = judge(arguments.gates, found)
    _print(model, infos, found)
    for verdict in verdicts:
        print(_sentence(verdict))
    if arguments.json is not None:
        document = {**describe_accuracy(model.name, infos, photos, found), "gates": verdicts}
        write_whole(arguments.json, (json.dumps(document, indent=2) + "\n").encode())
    return 0 if found["photos"] and all(verdict["passed"] for verdict in verdicts) else 1


def _sentence(verdict: Verdict) -> str:
    end = "passed" if verdict["passed"] else "MISSED"
    return (
        f"{verdict['variant']}: {verdict['measure']} {verdict['lost_points']:+.2f} points lost, "
        f"{verdict['allowed_points']:g} allowed: {end}"
    )


@contextmanager
def _telling_what_is_kept(state: StateFile, total: int, path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(
            f"tessera: stopped; the results of {state.done.photos:,} of {counted(total, 'photo', form=',')} are kept "
            f"in {path}. The same command goes on from there.",
            file=sys.stderr,
        )
        raise


def _check(model: Model, infos: dict[str, engine.SessionInfo]) -> None:
    for name, info in infos.items():
        if not info.normalises:
            raise StartupError(f"Variant {name!r} of {model.name} takes no uint8 images.")
        if (classes := info.outputs[0].shape[1]) not in (None, len(model.labels)):
            raise StartupError(
                f"Variant {name!r} of {model.name} has {counted(classes, 'class', 'classes')} for "
                f"{counted(len(model.labels), 'label')}."
            )


def _watcher(display: ProgressDisplay, total: int, act_on_signals: Callable[[], None]) -> Watcher:
    def show(photos: int, rate: float) -> None:
        act_on_signals()
        display("evaluating", photos / total, f"{photos:,} of {counted(total, 'photo', form=',')}, {rate:.1f}/s")

    return Watcher(show, lambda path, reason: display.say(f"tessera: {path}: {reason}"))


def _print(model: Model, infos: dict[str, engine.SessionInfo], found: Result) -> None:
    table = Table(box=box.MARKDOWN)  # so that it can be pasted
    for heading in ("variant", "engine", "precision"):
        table.add_column(heading)
    for heading in ("top-1", "top-5", "agreement", "SQNR", "lost / gained", "p"):
        table.add_column(heading, justify="right")
    for position, (name, variant) in enumerate(found["variants"].items()):
        compared = _compared(variant) if position else ("", "", "", "")
        info = infos[name]
        table.add_row(
            name, info.backend, info.precision, _percent(variant["top1"]), _percent(variant["top5"]), *compared
        )
    console = Console(width=_WIDTH)
    title = (
        f"{model.name} on {counted(found['photos'], 'photo', form=',')}, {found['images_per_second']:.1f} per second"
    )
    console.print(f"{title}; in brackets 95 % intervals\n", highlight=False)
    console.print(table)
    for opened in model.variants.values():
        if opened.note:
            print(f"tessera: {opened.name}: {opened.note}", file=sys.stderr)
    if found["unreadable"]:
        left_out = counted(found["unreadable"], "photo", form=",")
        print(f"tessera: {left_out} could not be read and {_is(found['unreadable'])} not counted.", file=sys.stderr)


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _compared(variant: VariantResult) -> tuple[str, str, str, str]:
    decibels = variant["sqnr_db"]
    return (
        _percent(variant["agreement"]),
        "equal" if decibels is None else f"{decibels:.2f} dB",
        f"{variant['lost']} / {variant['gained']}",
        f"{variant['p_value']:.2g}",
    )


def _percent(share: Share) -> str:
    return f"{share['share']:.2%} [{share['low'] * 100:.2f}, {share['high'] * 100:.2f}]"
