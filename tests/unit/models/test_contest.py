"""Who runs the optimised variant: decided by measurements that the tests make up, with real files and sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera import engine
from tessera.engine.quantize.pipeline import calibrate
from tessera.models import contest
from tessera.models.registry import Model, open_model
from tessera.models.variant import Variant
from tests.unit.models.tiny import tiny_folder, tiny_images, tiny_model

THREADS = 1


class Clock:
    """Says how long a session takes: seconds an image by backend and precision, in batches of so many images."""

    def __init__(self, **seconds: float) -> None:
        self._seconds = seconds
        self.spoilt: list[float] = []  # what the next runs of our engine take instead

    def __call__(self, sessions: Sequence[engine.Session], images: NDArray[np.uint8]) -> list[float]:
        return [self._run(session, images) for session in sessions]

    def _run(self, session: engine.Session, images: NDArray[np.uint8]) -> float:
        session.run(images)
        info = session.describe()
        if info.backend == "cpu" and self.spoilt:
            return self.spoilt.pop()
        size = f"{info.backend}_{info.precision}_{len(images)}"
        return len(images) * self._seconds.get(size, self._seconds[f"{info.backend}_{info.precision}"])


def load(variant: Variant) -> engine.Session:
    return engine.load(variant.path, backend=variant.backend, threads=THREADS)


def settled(model: Model, clock: Clock) -> Variant:
    """The optimised variant after a contest, checked against the session that is left."""
    sessions = {name: load(variant) for name, variant in model.variants.items()}
    after = contest.settle(model, THREADS, sessions, load, clock).variants["optimised"]
    info = sessions["optimised"].describe()
    assert (info.backend, info.precision) == (after.backend, after.precision)
    images = np.zeros((2, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(sessions["optimised"].run(images), sessions["baseline"].run(images), rtol=0.2, atol=0.2)
    for session in sessions.values():
        session.close()
    return after


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("plain") / "tiny")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_folder(tmp_path_factory.mktemp("calibrated") / "tiny")
    calibrate(tiny_model(), [tiny_images(8)], fallback="none", bias_correction=False)[0].save(
        folder / "calibration.json"
    )
    return folder


FLOAT: dict[str, tuple[Clock, str]] = {
    "ours is faster": (Clock(cpu_fp32=0.010, onnxruntime_fp32=0.020), "cpu"),
    "equal": (Clock(cpu_fp32=0.020, onnxruntime_fp32=0.020), "cpu"),
    "slower within the noise": (Clock(cpu_fp32=0.0215, onnxruntime_fp32=0.020), "cpu"),
    "slower by less than a request feels": (Clock(cpu_fp32=0.0003, onnxruntime_fp32=0.0001), "cpu"),
    "slower": (Clock(cpu_fp32=0.040, onnxruntime_fp32=0.020), "onnxruntime"),
    "slower in batches only": (Clock(cpu_fp32=0.010, cpu_fp32_8=0.03, onnxruntime_fp32=0.020), "onnxruntime"),
}


@pytest.mark.parametrize("case", FLOAT)
def test_ours_stays_unless_it_is_clearly_slower(case: str, plain: Path, tmp_path: Path) -> None:
    clock, backend = FLOAT[case]
    model = open_model(plain, cache=tmp_path)
    assert contest.is_open(model, THREADS)
    after = settled(model, clock)
    assert after.backend == backend
    assert ("our engine would be slower: it takes" in after.note) == (backend != "cpu")
    # From now on everybody who opens the model finds the same, and nothing is measured again.
    again = open_model(plain, cache=tmp_path)
    assert not contest.is_open(again, THREADS)
    assert contest.remembered(again, THREADS).variants["optimised"] == after
    assert contest.is_open(again, THREADS + 1)


def test_a_few_disturbed_rounds_decide_nothing(plain: Path, tmp_path: Path) -> None:
    clock = Clock(cpu_fp32=0.019, onnxruntime_fp32=0.020)
    clock.spoilt = [1.0] * 4
    assert settled(open_model(plain, cache=tmp_path), clock).backend == "cpu"


INTEGERS: dict[str, tuple[float, float, tuple[str, str, str]]] = {
    "ours": (0.010, 0.005, ("cpu", "int8", "optimised.onnx")),
    "ONNX Runtime's int8": (0.030, 0.010, ("onnxruntime", "int8", "optimised.onnx")),
    "the baseline": (0.030, 0.030, ("onnxruntime", "fp32", "baseline.onnx")),
    "the baseline, when it is close": (0.030, 0.0195, ("onnxruntime", "fp32", "baseline.onnx")),
}


@pytest.mark.parametrize("winner", INTEGERS)
def test_of_an_int8_model_the_fastest_form_runs(winner: str, calibrated: Path, tmp_path: Path) -> None:
    ours, integers, (backend, precision, file) = INTEGERS[winner]
    clock = Clock(cpu_int8=ours, onnxruntime_int8=integers, onnxruntime_fp32=0.020)
    after = settled(open_model(calibrated, cache=tmp_path), clock)
    assert (after.backend, after.precision, after.path.name) == (backend, precision, file)


def test_a_cache_that_cannot_be_written_or_is_damaged_costs_another_measurement(plain: Path, tmp_path: Path) -> None:
    model = open_model(plain, cache=tmp_path)
    settled(model, Clock(cpu_fp32=0.040, onnxruntime_fp32=0.020))
    (record,) = tmp_path.glob("models/*/contest-*.json")
    record.write_text("{}")
    assert contest.remembered(model, THREADS) == model
    record.unlink()
    record.mkdir()
    assert settled(model, Clock(cpu_fp32=0.040, onnxruntime_fp32=0.020)).backend == "onnxruntime"
    assert contest.is_open(model, THREADS)
