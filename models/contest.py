"""Our engine against ONNX Runtime: who runs the optimised variant on this machine. Measured once, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera.engine import Session, _native
from tessera.engine.errors import ModelError
from tessera.engine.machine import cpu_name
from tessera.engine.quantize.files import write_whole
from tessera.models.registry import Model
from tessera.models.variant import Variant
from tessera.wording import counted

# What is closer counts as equal, and stays as it is.
_MARGIN = 1.1
_CLEAR = 0.7
_LEAST_SECONDS = 3e-4  # an image, below what a request costs around the engine
_MOST_ROUNDS = 0.8  # of all, so that a neighbour who comes and goes decides nothing
_ROUNDS = (1, 2, 8)
_MOST_IMAGES = 8

# Seconds of one run of each session on a batch, measured one right after the other.
Race = Callable[[Sequence[Session], NDArray[np.uint8]], list[float]]


@dataclass(frozen=True)
class Comparison:
    """Medians of runs of two sessions in turns.

    Attributes:
        images: of a batch.
        first: seconds an image of the session that is examined.
        other: seconds an image of the one that it is compared with.
        behind: share of the rounds in which the first one was clearly the slower one.
    """

    images: int
    first: float
    other: float
    behind: float

    @property
    def loses(self) -> bool:
        """Whether the first is slower beyond doubt, and by more than a request would feel."""
        slower = self.first > self.other * _MARGIN and self.first - self.other > _LEAST_SECONDS
        return slower and self.behind >= _MOST_ROUNDS

    @property
    def wins(self) -> bool:
        """Whether one round is enough."""
        return self.first < self.other * _CLEAR


def take_turns(sessions: Sequence[Session], images: NDArray[np.uint8]) -> list[float]:
    """Run a batch once in each session; returns the seconds."""
    seconds = []
    for session in sessions:
        started = time.perf_counter()
        session.run(images)
        seconds.append(time.perf_counter() - started)
    return seconds


def remembered(model: Model, threads: int) -> Model:
    """A model whose optimised variant is run by whoever won the contest on this machine, where there was one."""
    optimised = model.variants.get("optimised")
    if optimised is None or not _is_contested(model):
        return model
    try:
        record: dict[str, Any] = json.loads(_record(optimised, threads).read_text(encoding="utf-8"))
        winner = _run_by(record["winner"], record["reason"], model)
    except (OSError, ValueError, KeyError, TypeError):
        return model
    return replace(model, variants={**model.variants, "optimised": winner})


def is_open(model: Model, threads: int) -> bool:
    """Whether the two variants of a model have still to be compared."""
    return _is_contested(model) and not _record(model.variants["optimised"], threads).is_file()


def settle(
    model: Model,
    threads: int,
    sessions: dict[str, Session],
    load: Callable[[Variant], Session],
    race: Race | None = None,
) -> Model:
    """Compare the variants of a model in turns, so that the optimised one is never the slower one.

    Args:
        model: as it was opened; `is_open` holds.
        threads: of a run.
        sessions: of both variants, warm. That of the optimised one is closed and replaced where it loses.
        load: loads a variant.
        race: measures; None for `take_turns`.

    Returns:
        The model with whoever runs the optimised variant from now on. It is kept, where the cache can be written.
    """
    record = _record(model.variants["optimised"], threads)
    winner, reason, race = "as built", "", race or take_turns
    lost = _lost(sessions["optimised"], sessions["baseline"], model, race)
    if lost is not None:
        winner = "baseline"
        sessions.pop("optimised").close()
        times = f"{1e3 * lost.first:.1f} ms an image where ONNX Runtime takes {1e3 * lost.other:.1f} ms"
        reason = f"it takes {times} ({counted(lost.images, 'image')} at once, {counted(threads, 'thread')})"
        integers = _integers(model, reason, load)
        if integers is not None and _lost(sessions["baseline"], integers, model, race) is not None:
            winner, sessions["optimised"] = "integers", integers
        elif integers is not None:
            integers.close()
    settled = _run_by(winner, reason, model)
    if "optimised" not in sessions:
        sessions["optimised"] = load(settled)
    with suppress(ModelError):  # a cache that is read-only: measured again at the next start
        write_whole(record, json.dumps({"winner": winner, "reason": reason}).encode())
    return replace(model, variants={**model.variants, "optimised": settled})


def _is_contested(model: Model) -> bool:
    """Whether the variants differ in what may be slower: only where ONNX Runtime can run both."""
    if not {"baseline", "optimised"} <= model.variants.keys():
        return False
    baseline, optimised = model.variants["baseline"], model.variants["optimised"]
    return baseline.backend == "onnxruntime" and (
        optimised.backend == "cpu" or (optimised.backend == "onnxruntime" and optimised.path != baseline.path)
    )


def _lost(first: Session, other: Session, model: Model, race: Race) -> Comparison | None:
    """The comparison in which the first session loses: of single images or of batches."""
    for images in (1, _MOST_IMAGES):
        compared = _compare(first, other, np.zeros((images, *model.preprocessing.shape), np.uint8), race)
        if compared.loses:
            return compared
    return None


def _compare(first: Session, other: Session, images: NDArray[np.uint8], race: Race) -> Comparison:
    rounds: list[list[float]] = []
    race([first, other], images)  # of this size for the first time
    for more in _ROUNDS:  # who seems to lose gets more of them
        rounds += [race([first, other], images) for _ in range(more)]
        one_takes, two_takes = (median(times) / len(images) for times in zip(*rounds, strict=True))
        behind = sum(one > two * _MARGIN for one, two in rounds) / len(rounds)
        compared = Comparison(len(images), one_takes, two_takes, behind)
        if compared.wins or (len(rounds) > 1 and not compared.loses):
            break
    return compared


def _integers(model: Model, reason: str, load: Callable[[Variant], Session]) -> Session | None:
    """The form of eight bits that our engine runs, on ONNX Runtime; None where there is none, or it cannot."""
    baseline, optimised = model.variants["baseline"], model.variants["optimised"]
    if optimised.backend != "cpu" or optimised.path == baseline.path:
        return None
    try:
        return load(_run_by("integers", reason, model))
    except ModelError:
        return None


def _run_by(winner: str, reason: str, model: Model) -> Variant:
    """The optimised variant as the winner runs it.

    Raises:
        KeyError: there is no such winner.
    """
    baseline, optimised = model.variants["baseline"], model.variants["optimised"]
    backend = {"as built": optimised.backend, "baseline": "onnxruntime", "integers": "onnxruntime"}[winner]
    if winner == "as built":
        return optimised
    what = "our engine" if optimised.backend == "cpu" else "its int8 form"
    said = f"ONNX Runtime runs the optimised variant, because {what} would be slower: {reason}."
    changed = replace(optimised, backend=backend, note=" ".join(filter(None, [said, optimised.note])))
    if winner == "integers":
        return changed
    return replace(changed, path=baseline.path, precision=baseline.precision, gate=None)


@cache
def _engine_version() -> str:
    return hashlib.sha256(Path(_native.__file__).read_bytes()).hexdigest()


def _record(optimised: Variant, threads: int) -> Path:
    """Where the result is kept: beside the graphs, by everything else that it depends on."""
    state = [cpu_name(), _native.isa(), threads, version("onnxruntime"), _engine_version()]
    fingerprint = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    return optimised.path.parent / f"contest-{fingerprint[:16]}.json"
