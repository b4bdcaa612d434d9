"""Model folders: what is accepted, and how a mistake in one is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.engine.errors import ModelError
from tessera.models.package import read_package
from tessera.models.preprocessing.image_size import Size
from tessera.models.preprocessing.transform import Preprocessing
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
        (GOOD.replace("tiny", ".tiny"), "'name' must be .*the first a letter or digit"),
        (GOOD.replace("resnet", "alexnet"), "'architecture' must be one of resnet"),
        ('name = "tiny"', "'onnx' is missing"),
        (
            GOOD.replace("weights.safetensors", "../weights.safetensors"),
            "'weights' must name a file in the same folder",
        ),
        (GOOD.replace("weights.safetensors", ".."), "'weights' must name a file in the same folder"),
        (GOOD + r'labels = "a\u0000"', "'labels' must name a file in the same folder"),
        (GOOD + f'calibration = "{"é" * 128}"', "'calibration' must name a file in the same folder"),
        (GOOD + "[preprocessing]\nsize = " + "9" * 5000, r"Cannot read .*model\.toml"),
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
        (GOOD + "[preprocessing]\nshape = 224", r"'preprocessing\.shape' is not a known key"),
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


@pytest.mark.parametrize(
    ("told", "sizes", "resizes"),
    [
        ("size = 224\nresize = 256", [224], [256]),
        ("size = [224, 224]\nresize = 256", [224], [256]),
        ("size = [224, 320]\nresize = 256", [(224, 320)], [256]),
        ("sizes = [224, 288, [320, 224]]\nresize = 256", [224, 288, (320, 224)], [256, 329, 256]),
        ("sizes = [[160, 256], 384]\nresize = 200", [(160, 256), 384], [200, 480]),
    ],
)
def test_sizes_are_numbers_or_heights_and_widths(
    folder: Path, told: str, sizes: list[Size], resizes: list[int]
) -> None:
    package = read_package(describe(folder, f"{GOOD}[preprocessing]\n{told}\n"))
    every = (package.preprocessing, *package.others)
    assert [each.size for each in every] == sizes
    assert [each.resize for each in every] == resizes, "all see as much of a photo"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("size = [224]", "'preprocessing.size' must be one number of pixels or"),
        ("size = [224, 0]", "from 1 to 4096"),
        ("size = [224.0, 224]", "'preprocessing.size' must be"),
        ("size = '224x320'", "'preprocessing.size' must be"),
        (
            "size = [224, 320]\nresize = 200",
            "'preprocessing.resize' must be at least the shorter side of the size",
        ),
        ("sizes = []", "'preprocessing.sizes' must be a list of sizes"),
        ("sizes = 224", "'preprocessing.sizes' must be a list of sizes"),
        ("sizes = [224, 5000]", "'preprocessing.sizes' must hold sizes, each one number"),
        ("sizes = [224, [224, 224]]", "'preprocessing.sizes' names 224 x 224 twice"),
        ("sizes = [1, 2, 3, 4, 5, 6, 7, 8, 9]", "names 9 sizes; at most 8"),
        ("size = 224\nsizes = [224]", "'preprocessing.size' goes without 'sizes'"),
    ],
)
def test_sizes_that_make_no_sense_are_named(folder: Path, told: str, words: str) -> None:
    with pytest.raises(ModelError, match=re.escape(words)):
        read_package(describe(folder, f"{GOOD}[preprocessing]\n{told}\n"))
