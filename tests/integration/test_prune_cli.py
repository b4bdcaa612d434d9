"""`tessera models prune` with the real command on a small network: what it makes and refuses, and how it is undone."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from tessera import engine
from tessera.app.cli import main
from tessera.engine.pruning import BLOCK, block_energies
from tests.servers import tessera
from tests.unit.models.tiny import SIZE, tiny_folder, tiny_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(2)
    for index in range(24):
        coarse = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(folder / f"{index % 5}_{index}.png")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tiny_folder(tmp_path / "tiny")
    (folder / "wnids.txt").write_text("".join(f"n{index}\n" for index in range(5)), encoding="utf-8")
    return folder


@pytest.fixture
def flags(model: Path, tmp_path: Path) -> list[str]:
    return ["--model-path", str(model), "--cache-dir", str(tmp_path / "cache"), "--into", str(tmp_path / "library")]


def zeros(path: Path) -> list[float]:
    """Of each convolution with blocks, the share of them that are zeros."""
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    some = [array for array in arrays if array.ndim == 4 and array.shape[1] >= BLOCK[1]]
    return [float(np.mean(block_energies(array, BLOCK) == 0)) for array in some]


def test_a_pruned_model_is_a_model_beside_the_old_one(
    photos: Path, model: Path, flags: list[str], tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    made = tessera("models", "prune", str(photos), "--share", "0.3", "--min-agreement", "0", *flags)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "library" / "tiny-pruned"
    assert "on 8 photos that nothing was fitted to" in made.stdout
    assert 0 < np.mean(zeros(folder / "model.onnx")) < 1
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert {path.name for path in folder.iterdir()} == {"labels.txt", "model.onnx", "model.toml", "wnids.txt"}
    for name in ("labels.txt", "wnids.txt"):
        assert (folder / name).read_text() == (model / name).read_text()
    with engine.load(folder / "model.onnx", backend="cpu") as ours:
        with engine.load(folder / "model.onnx", backend="onnxruntime") as theirs:
            expected = theirs.run(tiny_images(4))
        np.testing.assert_allclose(ours.run(tiny_images(4)), expected, rtol=1e-3, atol=1e-3)
    cache = ("--cache-dir", str(tmp_path / "cache"))
    evaluated = tessera("models", "evaluate", str(photos), "--model-path", str(folder), *cache)
    assert evaluated.returncode == 0, evaluated.stderr
    (undo,) = re.findall(r"Undo it with: tessera (.*)", made.stdout)
    undone = tessera(*shlex.split(undo), "--models", str(tmp_path / "library"), *cache)
    assert undone.returncode == 0, undone.stderr
    assert not folder.exists()


def test_without_a_share_the_largest_that_passes_is_taken(
    photos: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "prune", str(photos), "--min-agreement", "0.5", "--name", "less", *flags]) == 0
    shown = capsys.readouterr().out
    (share,) = re.findall(r"with ([\d.]+)% of the multiplications", shown)
    assert 0 < float(share) < 100
    assert max(zeros(tmp_path / "library" / "less" / "model.onnx")) > 0


@pytest.mark.parametrize("share", [["--share", "0.9"], []])
def test_a_gate_that_does_not_hold_leaves_nothing(
    share: list[str], photos: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "prune", str(photos), *share, "--min-sqnr", "150", *flags]) == 1
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if "gate" in line]
    assert re.search(r"agreement [\d.]+% where 98.0% was asked, SQNR -?[\d.]+ dB where 150 dB was asked", line)
    assert "Nothing was written." in line
    assert "Serve it" not in told.out
    assert not (tmp_path / "library").exists()
