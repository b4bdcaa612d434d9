"""`tessera models evaluate` with the real command, on a tiny model and photos of its classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tessera import engine
from tessera.app.cli import main
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.registry import open_model
from tests.unit.models.tiny import LABELS, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "tiny")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for index, label in enumerate(LABELS):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3 + index):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    (tmp_path / "photos" / "ant" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    return tmp_path / "photos"


def evaluate(*arguments: object) -> int:
    return main(["models", "evaluate", *map(str, arguments)])


def test_every_variant_is_counted(
    folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (photos, "--model-path", folder, "--cache-dir", tmp_path / "cache", "--json", tmp_path / "result.json")
    assert evaluate(*flags) == 0
    out, err = capsys.readouterr()
    assert "broken.jpg: The" in err
    assert "1 photo could not be read and is not counted" in err
    document = json.loads((tmp_path / "result.json").read_text())
    assert (document["model"], document["photos"], document["unreadable"]) == ("tiny", 25, 1)
    assert document["unreadable_names"] == [str(photos / "ant" / "broken.jpg")]
    model = open_model(folder, cache=tmp_path / "cache")
    decoder = ImageDecoder(model.preprocessing, max_pixels=10**6)
    files = sorted(photos.rglob("*.png"))
    pixels = np.empty((len(files), *decoder.shape), np.uint8)
    for file, row in zip(files, pixels, strict=True):
        decoder.decode(file.read_bytes(), row)
    with engine.load(model.variants["baseline"].path, backend="onnxruntime") as session:
        right = session.run(pixels).argmax(1) == [LABELS.index(file.parent.name) for file in files]
    assert document["variants"]["baseline"]["top1"]["count"] == right.sum()
    assert document["variants"]["optimised"]["agreement"]["share"] == 1.0
    assert document["variants"]["optimised"]["engine"] == "cpu"
    assert f"{right.mean():.2%}" in out
    assert "optimised" in out


def test_state_is_taken_up_and_guarded(
    folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model-path", folder, "--cache-dir", tmp_path / "cache", "--resume", tmp_path / "state")
    assert evaluate(photos, *flags) == 0
    first, size = capsys.readouterr().out, (tmp_path / "state").stat().st_size
    assert evaluate(photos, *flags) == 0
    assert (capsys.readouterr().out, (tmp_path / "state").stat().st_size) == (first, size)
    (tmp_path / "val.txt").write_text("ant/0.png 0\nant/gone.png 0\n", encoding="utf-8")
    assert evaluate(photos, "--list", tmp_path / "val.txt", *flags) == 1
    assert "photos changed since" in capsys.readouterr().err
    description = (folder / "model.toml").read_text().replace("resize = 32", "resize = 36")
    (folder / "model.toml").write_text(description)
    assert evaluate(photos, *flags) == 1
    assert "preprocessing changed since" in capsys.readouterr().err
    assert evaluate(photos, "--list", tmp_path / "val.txt", *flags[:-2]) == 0
    assert "gone.png: No such file" in capsys.readouterr().err


def test_wrong_calls_are_told(folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--model-path", folder, "--cache-dir", tmp_path / "cache")
    (tmp_path / "wnids").write_text("n1\nn2\n", encoding="utf-8")
    for arguments, message in (
        ((tmp_path / "gone",), "no folder of photos"),
        ((photos, "--wnids", tmp_path / "wnids"), "2 lines, but the model has 5 classes"),
        ((tmp_path,), "not named like one class"),
        ((photos, "--json", tmp_path / "gone" / "result.json"), "no folder"),
    ):
        assert evaluate(*arguments, *flags) == 1
        assert message in capsys.readouterr().err


def test_a_gate_decides_the_exit_code(
    folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (photos, "--model-path", folder, "--cache-dir", tmp_path / "cache", "--backend", "cpu")
    assert evaluate(*flags, "--gate", "top5=0.5", "--gate", "top1=0", "--json", tmp_path / "result.json") == 0
    out = capsys.readouterr().out
    assert "optimised: top5 +0.00 points lost, 0.5 allowed: passed" in out
    assert "optimised: top1 +0.00 points lost, 0 allowed: passed" in out
    gates = json.loads((tmp_path / "result.json").read_text())["gates"]
    assert [(gate["measure"], gate["passed"]) for gate in gates] == [("top5", True), ("top1", True)]
    for wrong in ("top5", "top5=", "top5=-1", "top5=nan", "top2=1", "top5=101"):
        with pytest.raises(SystemExit) as ended:
            evaluate(*flags, "--gate", wrong)
        assert ended.value.code == 2
        assert "write top5=0.5" in capsys.readouterr().err
