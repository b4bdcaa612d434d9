"""From settings to a model whose every variant is built, loaded and warm. Blocking; runs before the first answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

import engine
from app.errors import StartupError
from app.imaging.decoder import SHAPE
from app.settings import Settings
from engine.errors import EngineError
from engine.session import Backend
from models.registry import Model, Variant, list_models, open_model

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class LoadedVariant:
    """One variant, ready to answer.

    Attributes:
        session: The engine session.
        info: What the session says of itself.
        note: A remark of the registry's on this variant; may be empty.
        peak: Measured peak multiply-accumulates per second at its precision, or None where it cannot be measured.
        full_batch_seconds: How long a warm batch of `max_batch` images took.
    """

    session: engine.Session
    info: engine.SessionInfo
    note: str
    peak: float | None
    full_batch_seconds: float


@dataclass(frozen=True)
class LoadedModel:
    """A model and its loaded variants by name."""

    model: Model
    variants: dict[str, LoadedVariant]

    def close(self) -> None:
        """Free every session."""
        for variant in self.variants.values():
            variant.session.close()


def find_model(settings: Settings) -> Path | None:
    """Decide which model folder the settings mean; None is the bundled model.

    Raises:
        StartupError: No such folder, or several models to choose from; the message lists them.
    """
    root, path = settings.models, settings.model_path
    if root is not None and not root.is_dir():
        raise StartupError(f"The models folder {root} does not exist; set --models to a folder of model folders.")
    if path is not None:
        for candidate in [path] if root is None else [root / path, path]:
            if candidate.exists():
                return candidate
        where = f" (nor inside {root})" if root is not None else ""
        raise StartupError(f"The model folder {path} does not exist{where}; see `tessera models list`.")
    if root is None:
        return None
    found = list_models(root, cache=settings.cache_dir)
    if len(found) == 1:
        return found[0].folder
    if not found:
        raise StartupError(f"There is no model in {root}.")
    names = ", ".join(summary.name for summary in found)
    raise StartupError(f"{root} holds several models ({names}); pick one with --model-path.")


def open_configured_model(settings: Settings, progress: Progress | None = None) -> Model:
    """Open the model that the settings mean, building its variants when they are not in the cache.

    Raises:
        StartupError: It cannot be found or built, or lacks the default variant; the message says why.
    """
    path = find_model(settings)
    try:
        model = open_model(path, cache=settings.cache_dir, progress=progress, target=settings.backend)
    except (EngineError, OSError) as error:
        raise StartupError(f"The model cannot be opened: {error}") from error
    if settings.default_variant not in model.variants:
        raise StartupError(
            f"The default variant {settings.default_variant!r} does not exist; {model.name} has: "
            f"{', '.join(sorted(model.variants))}."
        )
    return model


def load(settings: Settings, progress: Progress) -> LoadedModel:
    """Open the model, and load and warm every variant at batch 1 and `max_batch`.

    Raises:
        StartupError: The model cannot be found, built or loaded; the message says why.
    """
    model = open_configured_model(settings, progress)
    with ExitStack() as opened:
        variants = {}
        for position, (name, variant) in enumerate(model.variants.items()):
            progress(f"loading {name}", position / len(model.variants))
            try:
                session = open_session(variant, settings)
                opened.callback(session.close)
                variants[name] = _warm(model, variant, session, settings.max_batch)
            except (EngineError, OSError) as error:
                raise StartupError(f"Variant {name!r} of {model.name} cannot be loaded: {error}") from error
        opened.pop_all()
    return LoadedModel(model, variants)


def open_session(variant: Variant, settings: Settings) -> engine.Session:
    """Load one variant on its backend."""
    return engine.load(
        variant.path,
        backend=cast(Backend, variant.backend),
        threads=settings.threads,
        precision="int8" if variant.backend == "ascend" and variant.precision == "int8" else "auto",
        graph=variant.graph,
        normalisation=variant.normalisation,
    )


def _warm(model: Model, variant: Variant, session: engine.Session, max_batch: int) -> LoadedVariant:
    info = session.describe()
    if not info.normalises:
        raise StartupError(
            f"Variant {variant.name!r} of {model.name} takes no uint8 images: {variant.path.name} carries no "
            "normalisation (metadata tessera.mean and tessera.std)."
        )
    for size in (1, max_batch):
        images = np.zeros((size, *SHAPE), np.uint8)
        session.run(images)
        started = time.perf_counter()
        logits = session.run(images)
        seconds = time.perf_counter() - started
    if logits.shape[1] != len(model.labels):
        raise StartupError(
            f"Variant {variant.name!r} of {model.name} gives {logits.shape[1]} scores for {len(model.labels)} labels."
        )
    return LoadedVariant(session, info, variant.note, _peak(session), seconds)


def _peak(session: engine.Session) -> float | None:
    try:
        peak = engine.session_peak(session)
    except (EngineError, ValueError) as error:
        logger.warning("no peak of this machine, so no compute utilisation: %s", error)
        return None
    if peak is None:
        logger.warning("no peak of %s is known, so no compute utilisation", session.describe().isa)
    return peak
