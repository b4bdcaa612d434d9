"""Label image files on this machine, without a server."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from tessera import engine
from tessera.app.commands.progress import ProgressDisplay
from tessera.app.errors import RequestError
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.protocol.classify import Classified, build_answer, resolve_top_k
from tessera.app.served.loading import open_configured_model, open_session
from tessera.app.served.selection import check_variant, find_model
from tessera.app.settings import Settings
from tessera.models.package import read_package

# Drawn for the page, which offers them too.
_SAMPLES = sorted((Path(__file__).parents[1] / "web" / "built").glob("*.jpg"))


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the labels of every file; 1 when any of them could not be read."""
    # All that can be wrong with the call, before anything is built.
    name = arguments.variant or settings.default_variant
    check_variant(name, "--default-variant" if arguments.variant is None else "--variant")
    named = _SAMPLES if arguments.sample else arguments.files
    files = [file for file in named if _is_there(file)]
    if not files:
        return 1
    with ProgressDisplay() as display:
        top_k = resolve_top_k(arguments.top_k, len(read_package(find_model(settings, display)).labels))
        model = open_configured_model(settings, display)
        session = open_session(model.variants[name], settings)
    decoder = ImageDecoder(model.preprocessing, max_pixels=settings.max_pixels, decode_scale=settings.decode_scale)
    with session:
        images = [image for file in files if (image := _classify(file, session, decoder)) is not None]
    answer = build_answer(model.name, name, images, model.labels, top_k)
    print(json.dumps(answer, indent=2) if arguments.json else _table(answer))
    return 0 if len(images) == len(named) else 1


def _is_there(file: Path) -> bool:
    try:
        file.open("rb").close()
    except OSError as error:
        print(f"tessera: {file}: {error.strerror or error}", file=sys.stderr)
        return False
    return True


def _classify(file: Path, session: engine.Session, decoder: ImageDecoder) -> Classified | None:
    pixels = np.empty((1, *decoder.shape), np.uint8)
    started = time.perf_counter()
    try:
        decoder.decode(file.read_bytes(), pixels[0])
    except (OSError, RequestError) as error:
        print(f"tessera: {file}: {error}", file=sys.stderr)
        return None
    decoded = time.perf_counter()
    logits = session.run(pixels)[0]
    shown = file.name if file in _SAMPLES else str(file)
    return Classified(shown, logits, decoded - started, 0.0, time.perf_counter() - decoded, 1)


def _table(answer: dict[str, object]) -> str:
    lines = []
    results: list[dict[str, object]] = answer["results"]  # type: ignore[assignment]
    for result in results:
        predictions: list[dict[str, object]] = result["predictions"]  # type: ignore[assignment]
        labels = ", ".join(f"{entry['label']} {entry['probability']:.1%}" for entry in predictions)
        lines.append(f"{result['filename']}: {labels}")
    return "\n".join(lines)
