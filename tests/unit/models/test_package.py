"""Model folders: what is accepted, and how a mistake in one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.engine.errors import ModelError
from tessera.models.package import read_package
from tessera.models.preprocessing import Preprocessing
from tessera.models.registry import BUNDLED
from tests.unit.models.tiny import LABELS, tiny_folder, tiny_model

GOOD = """
name = "tiny"
architecture = "resnet"
weights = "weights.safetensors"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("ant\nbee\n", encoding="utf-8")
    return tmp_path


def describe(folder: Path, text: str) -> Path:
    (folder / "model.toml").write_text(text, encoding="utf-8")
    return folder


def test_bundled_model_is_described() -> None:
    package = read_package(BUNDLED)
    assert package.name == "resnet50-imagenette"
    assert package.labels[0] == "tench"
    assert len(package.labels) == 10
    assert package.preprocessing == Preprocessing()
    assert package.calibration.is_file()


def test_described_folder(tmp_path: Path) -> None:
    package = read_package(tiny_folder(tmp_path))
    assert (package.name, package.architecture, package.labels) == ("tiny", "resnet", LABELS)
    assert package.preprocessing.size == 32


def test_bare_folder_needs_one_graph_and_labels(tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"no \*\.onnx"):
        read_package(folder)
    (folder / "a.onnx").write_bytes(tiny_model().SerializeToString())
    with pytest.raises(ModelError, match=r"labels\.txt"):
        read_package(folder)
    (folder / "labels.txt").write_text("ant\n", encoding="utf-8")
    assert read_package(folder).name == "my-model"
    (folder / "b.onnx.gz").write_bytes(b"")
    with pytest.raises(ModelError, match="2 ONNX files"):
        read_package(folder)


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        read_package(tmp_path / "gone")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", r"Cannot read .*model\.toml"),
        ("", "'name' is missing"),
        ('name = ""', "'name'"),
        ("name = 5", "'name' must be a text"),
        (GOOD.replace("tiny", "../evil"), "'name' must be"),
        (GOOD.replace("resnet", "alexnet"), "'architecture' must be one of resnet"),
        ('name = "tiny"', "'onnx' is missing"),
        (
            GOOD.replace("weights.safetensors", "../weights.safetensors"),
            "'weights' must name a file in the same folder",
        ),
        (GOOD.replace("weights.safetensors", ".."), "'weights' must name a file in the same folder"),
        (GOOD + 'colour = "red"', "'colour' is not a known key"),
        (GOOD + "preprocessing = 3", "'preprocessing' must be a table"),
        (GOOD + "[preprocessing]\nsize = 0", r"'preprocessing\.size'"),
        (GOOD + "[preprocessing]\nsize = true", r"'preprocessing\.size'"),
        (GOOD + "[preprocessing]\nsize = 300", r"'preprocessing\.resize' must be at least the size, 300"),
        (GOOD + "[preprocessing]\nmean = [0.5, 0.5]", r"'preprocessing\.mean' must be three numbers"),
        (GOOD + "[preprocessing]\nmean = [nan, 0.5, 0.5]", r"'preprocessing\.mean' must be three numbers"),
        (GOOD + "[preprocessing]\nstd = [0.2, 0.0, 0.2]", r"'preprocessing\.std' must be above zero"),
        (GOOD + '[preprocessing]\ninterpolation = "nearest"', "must be one of bilinear, bicubic"),
        (GOOD + "[preprocessing]\ninterpolation = 1", r"'preprocessing\.interpolation' must be a text"),
        (GOOD + "[preprocessing]\nsizes = 224", r"'preprocessing\.sizes' is not a known key"),
    ],
)
def test_mistakes_in_the_description_are_named(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_package(describe(folder, text))


@pytest.mark.parametrize("labels", [b"", b"ant\n\nbee\n", b"\xff\xfe"])
def test_unusable_labels_are_named(folder: Path, labels: bytes) -> None:
    (folder / "labels.txt").write_bytes(labels)
    with pytest.raises(ModelError, match=r"labels\.txt"):
        read_package(describe(folder, GOOD))


@given(junk=st.binary(max_size=300))
def test_any_description_is_read_or_refused(junk: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("junk")
    (folder / "model.toml").write_bytes(junk)
    with pytest.raises(ModelError):
        read_package(folder)
