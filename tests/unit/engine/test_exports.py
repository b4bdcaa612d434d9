from __future__ import annotations

from tessera import engine


def test_every_exported_name_exists_and_is_sorted() -> None:
    assert all(hasattr(engine, name) for name in engine.__all__)
    assert engine.__all__ == sorted(engine.__all__)


def test_the_documented_names_are_exported() -> None:
    assert {"load", "quantize", "measure_peak", "Session", "LayerTiming"} <= set(engine.__all__)
