"""Label photos on this machine, without a server: files, folders, tar files, or lists of paths."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tessera.app.commands.batch.output import BatchOutput, check_output
from tessera.app.commands.batch.running import Outcome, Unreadable, classify, row_of
from tessera.app.commands.batch.sources import STANDARD_INPUT, Photo, find_photos
from tessera.app.commands.batch.tally import Tally
from tessera.app.commands.identity import identify
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.errors import StartupError
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.protocol.classify import Classified, build_answer, resolve_top_k, top_predictions
from tessera.app.served.loading import default_decode_threads, open_configured_model, open_session
from tessera.app.served.selection import check_variant, read_model_folder
from tessera.app.settings import Settings
from tessera.wording import counted

# Drawn for the page, which offers them too.
_SAMPLES = sorted((Path(__file__).parents[1] / "web" / "built").glob("*.jpg"))


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Tell the labels of every photo; 1 when any of them could not be read."""
    # All that can be wrong with the call, before anything is built.
    variant = arguments.variant or settings.default_variant
    check_variant(variant, "--default-variant" if arguments.variant is None else "--variant")
    if not _is_left(arguments.output, resume=arguments.resume):
        return 0
    named = _SAMPLES if arguments.sample else arguments.files
    sources = [source for source in named if _is_there(source)]
    photos = _some(sources)
    if photos is None:
        return 1
    with ExitStack() as opened:
        display = opened.enter_context(ProgressDisplay())
        top_k = resolve_top_k(arguments.top_k, len(read_model_folder(settings, display).labels))
        model = open_configured_model(settings, display)
        session = opened.enter_context(open_session(model.variants[variant], settings))
        decoder = ImageDecoder(model.preprocessing, max_pixels=settings.max_pixels, decode_scale=settings.decode_scale)
        output = None
        if arguments.output is not None:
            identity = {**identify(model, {variant: session.describe()}, settings), "top_k": top_k}
            output = opened.enter_context(BatchOutput(arguments.output, identity, top_k))
        tally = Tally(display.say) if output is None else Tally(display.say, *output.skip(photos))
        if display.is_drawn and (output is not None or not sys.stdout.isatty()):
            tally.draw(display, sources)
        else:
            display.close()
        threads = settings.decode_threads or default_decode_threads()
        outcomes = tally.watch(opened.enter_context(closing(classify(photos, session, decoder, threads))))
        if output is not None:
            _keep(outcomes, tally, output, model.labels, top_k)
        else:
            _print(
                _document if arguments.json else _lines, outcomes, Answerer(model.name, variant, model.labels, top_k)
            )
    return 1 if len(sources) < len(named) or tally.unreadable else 0


def _is_left(output: Path | None, *, resume: bool) -> bool:
    """Whether there is anything to do, and a place for it."""
    if output is None:
        if resume:
            raise StartupError("--resume goes on with a file of results; name it with --output.")
        return True
    left = check_output(output, resume=resume)
    if not left:
        print(f"tessera: {output} is there already; remove it to begin again.", file=sys.stderr)
    return left


def _is_there(source: Path) -> bool:
    if str(source) == STANDARD_INPUT or source.is_dir():
        return True
    try:
        source.open("rb").close()
    except OSError as error:
        print(f"tessera: {source}: {error.strerror or error}", file=sys.stderr)
        return False
    return True


def _some(sources: Sequence[Path]) -> Iterator[Photo] | None:
    """The photos of the sources; None, and told so, where there are none."""
    if not sources:
        return None
    photos = (
        photo._replace(name=Path(photo.name).name) if Path(photo.name) in _SAMPLES else photo
        for photo in find_photos(sources)
    )
    first = next(photos, None)
    if first is None:
        print(f"tessera: There are no photos in {', '.join(map(str, sources))}.", file=sys.stderr)
        return None
    return chain([first], photos)


def _keep(
    outcomes: Iterator[list[Outcome]], tally: Tally, output: BatchOutput, labels: Sequence[str], top_k: int
) -> None:
    """Write results to a file; say what is kept when that is stopped."""
    try:
        for batch in outcomes:
            output.append([row_of(outcome, labels, top_k) for outcome in batch])
    except (KeyboardInterrupt, SystemExit):
        print(
            f"tessera: stopped; the results of {counted(tally.photos, 'photo', form=',')} are kept in "
            f"{output.journal}. The same command with --resume goes on from there.",
            file=sys.stderr,
        )
        raise
    output.finish()
    print(f"tessera: {output.path}: {tally}.", file=sys.stderr)


class Answerer(NamedTuple):
    """What an answer says besides the scores."""

    model: str
    variant: str
    labels: Sequence[str]
    top_k: int

    def answer(self, *images: Classified) -> dict[str, Any]:
        """The body that POST /v1/classify would answer with."""
        return build_answer(self.model, self.variant, images, self.labels, self.top_k)


def _print(
    form: Callable[[Iterator[Classified], Answerer], Iterator[str]],
    outcomes: Iterator[list[Outcome]],
    answerer: Answerer,
) -> None:
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names of files are bytes
    readable = (outcome for batch in outcomes for outcome in batch if not isinstance(outcome, Unreadable))
    for text in form(readable, answerer):
        sys.stdout.write(text)


def _lines(images: Iterator[Classified], answerer: Answerer) -> Iterator[str]:
    for image in images:
        found = top_predictions(image.logits, answerer.labels, answerer.top_k)
        labels = ", ".join(f"{entry['label']} {entry['probability']:.1%}" for entry in found)
        yield f"{image.filename}: {labels}\n"


def _document(images: Iterator[Classified], answerer: Answerer) -> Iterator[str]:
    """The answer piece by piece, so that its results need not all be there at once."""
    head, _, tail = json.dumps(answerer.answer(), indent=2).rpartition("[]")
    yield f"{head}["
    between = "\n"
    for image in images:
        (result,) = answerer.answer(image)["results"]
        yield between + textwrap.indent(json.dumps(result, indent=2), "    ")
        between = ",\n"
    yield ("]" if between == "\n" else "\n  ]") + f"{tail}\n"
