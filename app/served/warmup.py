"""The first runs of a session: that it is the model's, how fast it is, and the same for further sizes."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from typing import Protocol

import numpy as np

from tessera import engine
from tessera.app.errors import StartupError
from tessera.app.scheduling.lanes import lane_of
from tessera.app.served.model import FurtherSize, ServedVariant
from tessera.engine.errors import EngineError
from tessera.models.preprocessing.image_size import sides
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.variant import Variant
from tessera.wording import counted

logger = logging.getLogger(__name__)

_SIZES = (1, 2, 4, 8, 16)


class Described(Protocol):
    """What a model is, whether it was opened from its folder or an earlier process has told of it."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the scores."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How photos become its input."""

    @property
    def others(self) -> tuple[Preprocessing, ...]:
        """The same for further sizes."""


def check(model: Described, variant: Variant, session: engine.Session) -> engine.SessionInfo:
    """Run one image, and make sure that the variant is what the model says; returns what the session is.

    Raises:
        StartupError: It is not.
    """
    info = session.describe()
    if not info.normalises:
        raise StartupError(
            f"Variant {variant.name!r} of {model.name} takes no uint8 images: {variant.path.name} carries no "
            "normalisation (metadata tessera.mean and tessera.std)."
        )
    run_once(model, variant, session)
    return info


def run_once(
    model: Described, variant: Variant, session: engine.Session, preprocessing: Preprocessing | None = None
) -> None:
    """Run one image, which also warms the session up, and look at how many scores it gives.

    Raises:
        StartupError: Not as many as the model has labels.
    """
    logits = session.run(np.zeros((1, *(preprocessing or model.preprocessing).shape), np.uint8))
    if logits.shape[1] != len(model.labels):
        raise StartupError(
            f"Variant {variant.name!r} of {model.name} gives {counted(logits.shape[1], 'score')} for "
            f"{counted(len(model.labels), 'label')}."
        )


def measure_batches(session: engine.Session, max_batch: int, shape: tuple[int, int, int]) -> dict[int, float]:
    """Run a warm session once per size 1, 2, 4, ... and `max_batch`; returns the seconds by size.

    `shape` is that of one image's pixels.

    Once each, because loading should be quick: batches that run later correct the figures.
    """
    measured: dict[int, float] = {}
    for size in sorted({size for size in _SIZES if size < max_batch} | {max_batch}):
        images = np.zeros((size, *shape), np.uint8)
        started = time.perf_counter()
        session.run(images)
        measured[size] = time.perf_counter() - started
    return measured


def peak_of(session: engine.Session) -> float | None:
    """Peak multiply-accumulates per second of what a session runs on; None, and logged, where it cannot be measured."""
    try:
        peak = session.peak()
    except (EngineError, ValueError) as error:
        logger.warning("no peak of this machine, so no compute utilisation: %s", error)
        return None
    if peak is None:
        logger.warning("no peak of %s is known, so no compute utilisation", session.describe().isa)
    return peak


def open_further(
    model: Described,
    variant: Variant,
    session: engine.Session,
    max_batch: int,
    known: ServedVariant | None,
    opened: ExitStack,
) -> dict[str, tuple[engine.Session, FurtherSize]]:
    """Open a variant's sessions for further sizes, by lane, from the weights of the first, and warm them.

    What an earlier process has measured of them is not measured again. Closing them is left to `opened`.

    Raises:
        StartupError: As `run_once`.
    """
    found = {}
    for preprocessing in model.others:
        lane = lane_of(variant.name, preprocessing.size)
        one = session.at(*sides(preprocessing.size))
        opened.callback(one.close)
        run_once(model, variant, one, preprocessing)
        info, before = one.describe(), None if known is None else known.further.get(lane)
        measured = before.batch_seconds if before else measure_batches(one, max_batch, preprocessing.shape)
        found[lane] = one, FurtherSize(info.macs, info.arena_bytes, measured)
    return found
