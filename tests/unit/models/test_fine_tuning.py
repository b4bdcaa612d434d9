"""A pruned network is trained towards the dense one, and keeps its zeros. PyTorch is an extra: skipped without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tessera.engine.errors import ModelError
from tessera.engine.pruning import Pruner
from tessera.engine.quantize import Gate
from tessera.engine.quantize.measures import sqnr
from tessera.models.fine_tuning import FineTuning, fine_tune
from tessera.models.preprocessing.photos import find_photos, read_photos
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.prune import prune_model
from tests.unit.models.tiny import MEAN, SIZE, STD, tiny_folder, tiny_model
from tests.unit.quantize.networks import constants, run

pytest.importorskip("torch", reason="torch is an optional extra; run: make test-export")

ANYTHING = Gate(sqnr=-300.0, agreement=0.0)
PREPROCESSING = Preprocessing(size=SIZE, resize=SIZE, mean=MEAN, std=STD)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(2)
    for index in range(24):
        coarse = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def test_it_comes_closer_to_the_dense_network_and_keeps_its_zeros(photos: Path) -> None:
    paths, dense, stages = find_photos(photos), tiny_model(), []
    images = np.concatenate(list(read_photos(paths, PREPROCESSING)))
    pruner = Pruner(dense, images)
    pruned = pruner.pruned(pruner.zeros(0.3))
    how = FineTuning(paths, epochs=8, rate=1e-3, threads=1)
    tuned = fine_tune(pruned, dense, how, PREPROCESSING, lambda stage, fraction: stages.append((stage, fraction)))
    wanted = run(dense, images)
    assert sqnr(wanted, run(tuned, images)) > sqnr(wanted, run(pruned, images)) + 1
    before, after = constants(pruned), constants(tuned)
    moved = [name for name in before if before[name].ndim == 4 and not np.array_equal(before[name], after[name])]
    assert moved
    for name in moved:
        np.testing.assert_array_equal(after[name][before[name] == 0], 0)
    assert [fraction for stage, fraction in stages if "epoch 8 of 8" in stage] == [0.5, 1.0]


def test_photos_that_the_gate_judges_by_are_not_trained_on(photos: Path, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    same = FineTuning(find_photos(photos, 24), epochs=1, threads=1)
    package, report = prune_model(folder, photos, tmp_path, share=0.1, gate=ANYTHING, fine_tuning=same)
    assert package is not None
    assert report.checked == 8
    judged_only = FineTuning([], epochs=1, threads=1)
    with pytest.raises(ModelError, match="judged by"):
        prune_model(folder, photos, tmp_path / "other", share=0.1, fine_tuning=judged_only)


def test_operators_that_resnets_have_not_are_told() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        net (float[N, 3, 32, 32] input) => (float[N, 3] output) {
            gated = Sigmoid(input)
            pooled = GlobalAveragePool(gated)
            output = Flatten(pooled)
        }"""
    )
    with pytest.raises(ModelError, match="Sigmoid"):
        fine_tune(model, model, FineTuning([], 1), PREPROCESSING)
