"""What a multiply-accumulate costs on each class of CPU, and that bf16 never runs where fp32 is faster."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tessera import engine
from tessera.engine import _native
from tessera.engine.rates import TABLE, rates_here, rates_of
from tests.unit.engine.test_session import classifier, pixels


def test_every_level_of_this_build_has_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_ISA", "no-such-level")
    with pytest.raises(ValueError, match="this build knows") as refused:
        rates_here()
    for level in re.sub(".*knows ", "", str(refused.value)).split(", "):
        assert rates_of(level, "").origin


def test_makers_whose_bf16_differs_have_rows_of_their_own() -> None:
    """AMD's bf16 products are twice as fast as fp32's, Intel's half as fast outside of AMX."""
    assert rates_of("avx512bf16", "AuthenticAMD").faster_float == "bf16"
    assert rates_of("avx512bf16", "GenuineIntel").faster_float == "fp32"
    assert rates_of("avx2", "GenuineIntel") is TABLE["avx2"]


def test_costs_grow_with_products_and_bytes() -> None:
    for rates in TABLE.values():
        for precision in ("int8", "bf16", "fp32"):
            assert rates.seconds(10**9, 0, precision) < rates.seconds(10**9, 10**6, precision)
            assert rates.seconds(0, 10**6, precision) < rates.seconds(10**9, 10**6, precision)
        assert rates.seconds(0, 10**6, "int8") < rates.seconds(0, 10**6, "bf16") < rates.seconds(0, 10**6, "fp32")


def test_bf16_runs_as_fp32_where_that_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier(tmp_path / "model.onnx")
    for level in ("scalar", None):
        if level:
            monkeypatch.setenv("TESSERA_ISA", level)
        else:
            monkeypatch.delenv("TESSERA_ISA")
        expected = rates_here().faster_float
        answers = {}
        for precision in ("bf16", "fp32"):
            with engine.load(path, backend="cpu", threads=1, precision=precision) as session:
                answers[precision] = session.run(pixels(3))
                if precision == "bf16":
                    assert session.describe().precision == expected, _native.isa()
        assert np.array_equal(answers["bf16"], answers["fp32"]) == (expected == "fp32"), _native.isa()
    assert TABLE["scalar"].faster_float == "fp32"  # so one level at least has shown it
