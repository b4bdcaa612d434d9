"""A graph on PyTorch's operators answers as on ours; PyTorch is an extra, and only reports use it so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera import engine
from tessera.models.registry import open_model
from tests.small_model import small_folder


def test_it_answers_as_the_baseline_does(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is an optional extra; run: make test-export")
    from tessera.models.torch_graph import TorchGraph

    model = open_model(small_folder(tmp_path / "small"), cache=tmp_path / "cache")
    path = model.variants["baseline"].path
    images = np.random.default_rng(0).normal(size=(3, 3, 224, 224)).astype(np.float32)
    with engine.load(path, backend="onnxruntime") as session:
        expected = session.run(images)
    assert np.abs(TorchGraph(path).run(images) - expected).max() <= 1e-4 * np.abs(expected).max()
