"""The bundled model and the ImageNet model, with real weights and real photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tessera.models.formats.weights import file_sha256
from tessera.models.preprocessing.photos import find_photos, read_photos
from tessera.models.quantise import quantise_model
from tessera.models.registry import BUNDLED, Model, open_model
from tests.shared_data import SHARED_DATA, requires_shared_data
from tests.unit.quantize.networks import nodes

PHOTOS = 100


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bundled(cache: Path) -> Model:
    return open_model(cache=cache)


def logits(path: Path, batches: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI it would saturate sums
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([np.asarray(session.run(["output"], {"input": batch})[0]) for batch in batches])


def test_bundled_model_needs_no_photos_and_is_int8(bundled: Model) -> None:
    assert bundled.name == "resnet50-imagenette"
    assert bundled.variants["optimised"].precision == "int8"
    quantised = onnx.load(bundled.variants["optimised"].path)
    assert len(nodes(quantised, "Conv")) == 53
    assert len(nodes(quantised, "Add")) == 16
    assert not nodes(quantised, "BatchNormalization")


@requires_shared_data
def test_bundled_weights_are_the_ones_that_were_measured() -> None:
    for name in ("weights.safetensors", "labels.txt", "wnids.txt"):
        assert file_sha256(BUNDLED / name) == file_sha256(SHARED_DATA / "resnet50-imagenette" / name)


@requires_shared_data
def test_bundled_model_recognises_photos_in_both_variants(bundled: Model) -> None:
    photos = find_photos(SHARED_DATA / "imagenette" / "val", PHOTOS)
    wnids = (BUNDLED / "wnids.txt").read_text(encoding="utf-8").split()
    truth = np.array([wnids.index(photo.parent.name) for photo in photos])
    baseline, optimised = (
        logits(bundled.variants[name].path, read_photos(photos, bundled.preprocessing)).argmax(axis=1)
        for name in ("baseline", "optimised")
    )
    assert (baseline == truth).mean() >= 0.78  # 84 % on all 3,925
    assert (baseline == optimised).mean() >= 0.98


@requires_shared_data
def test_imagenet_folder_works_before_and_after_calibration(cache: Path) -> None:
    folder, sample = SHARED_DATA / "resnet50-imagenet", SHARED_DATA / "imagenet-sample"
    before = open_model(folder, cache=cache)
    assert (before.name, len(before.labels)) == ("resnet50-imagenet", 1000)
    assert before.variants["optimised"].precision == "fp32"
    photos = find_photos(sample, 24)
    truth = np.array([int(photo.name[:3]) for photo in photos])
    baseline = logits(before.variants["baseline"].path, read_photos(photos, before.preprocessing)).argmax(axis=1)
    assert (baseline == truth).mean() >= 0.75  # 90 % on all 500
    quantise_model(folder, sample, cache=cache, limit=24)
    after = open_model(folder, cache=cache)
    assert after.variants["optimised"].precision == "int8"
    optimised = logits(after.variants["optimised"].path, read_photos(photos, after.preprocessing)).argmax(axis=1)
    assert (optimised == baseline).mean() >= 0.85
