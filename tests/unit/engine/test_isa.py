"""Every instruction-set level gives the same integer answers, and nearly the same floating-point ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tessera import engine
from tessera.engine import _native
from tessera.engine.peak import measure_reads
from tests.unit.engine.test_session import classifier, pixels, quantised


def levels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Levels that this machine reaches; the error text of a wrong level lists those that the build knows."""
    monkeypatch.setenv("TESSERA_ISA", "no-such-level")
    with pytest.raises(ValueError, match="this build knows") as refused:
        _native.isa()
    known = re.sub(".*knows ", "", str(refused.value)).split(", ")
    reached = []
    for level in known:
        monkeypatch.setenv("TESSERA_ISA", level)
        if _native.isa() == level:
            reached.append(level)
    return reached


def answers(path: Path, level: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setenv("TESSERA_ISA", level)
    with engine.load(path, backend="cpu", threads=2, precision=precision) as session:
        assert session.describe().isa == level
        return session.run(pixels(5))


def test_integer_answers_are_bit_equal_on_every_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quantised(tmp_path)
    expected = answers(path, "scalar", "int8", monkeypatch)
    for level in levels(monkeypatch):
        np.testing.assert_array_equal(answers(path, level, "int8", monkeypatch), expected, err_msg=level)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_floating_point_answers_are_close_on_every_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float
) -> None:
    path = classifier(tmp_path / "model.onnx")
    expected = answers(path, "scalar", precision, monkeypatch)
    for level in levels(monkeypatch):
        actual = answers(path, level, precision, monkeypatch)
        assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected), level


def test_an_unknown_level_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_ISA", "sse9")
    with pytest.raises(ValueError, match=r"sse9.*scalar"):
        engine.load(classifier(tmp_path / "model.onnx"), backend="cpu")


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp32"])
def test_the_peak_is_a_rate(precision: str) -> None:
    assert engine.measure_peak(precision, 1) > 1e8
    with pytest.raises(ValueError, match="int8, bf16 or fp32"):
        engine.measure_peak("int4", 1)
    with pytest.raises(ValueError, match="0 threads"):
        engine.measure_peak(precision, 0)


def test_the_rates_of_reading_are_rates() -> None:
    rates = measure_reads()
    assert rates.l2_bytes >= 1 << 16
    assert min(rates.within, rates.beyond) > 1e8
    assert (rates.of(rates.l2_bytes), rates.of(rates.l2_bytes + 1)) == (rates.within, rates.beyond)
    with pytest.raises(ValueError, match="0 threads"):
        measure_reads(0)
