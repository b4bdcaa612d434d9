"""Whose calibration is served: what failed its gate is not, what was made here goes first, and reset undoes it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tessera import engine
from tessera.app.cli import main
from tessera.engine.errors import ModelError
from tessera.engine.quantize import Calibration, Gate
from tessera.engine.quantize.calibration import Verdict
from tessera.models.calibrations import CalibrationFiles
from tessera.models.package import read_package
from tessera.models.preprocessing.image_size import Size, sides
from tessera.models.quantise import quantise_model
from tessera.models.registry import BUNDLED, open_model
from tessera.models.variant import Variant
from tests.unit.models.tiny import tiny_folder

EASY = Gate(1.0, 0.0)
IMPOSSIBLE = ("--fallback", "none", "--min-sqnr", "90")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(6):
        Image.linear_gradient("L").resize((48, 40 + number)).rotate(30 * number).convert("RGB").save(
            folder / f"{number}.png"
        )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "tiny")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def optimised(folder: Path, cache: Path) -> Variant:
    return open_model(folder, cache=cache).variants["optimised"]


def models(action: str, *arguments: object) -> int:
    return main(["models", action, *map(str, arguments)])


def test_what_failed_its_gate_is_served_only_once_it_is_accepted(
    folder: Path, cache: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model-path", folder, "--cache-dir", cache)
    assert models("quantise", photos, *flags, *IMPOSSIBLE) == 1
    told = capsys.readouterr().err
    assert "the gate is not met: SQNR" in told
    assert f"tessera models quantise --accept --model-path {folder} --cache-dir {cache}" in told
    before = optimised(folder, cache)
    assert (before.precision, before.gate) == ("fp32", None)
    assert "failed its gate and is not used" in before.note
    assert models("quantise", "--accept", *flags) == 0
    after = optimised(folder, cache)
    assert after.precision == "int8"
    assert after.gate is not None
    assert (after.gate["met"], after.gate["least_sqnr"]) == (False, 90.0)
    assert "failed its gate and was accepted: SQNR" in after.note
    assert models("quantise", "--accept", *flags) == 1
    assert "nothing to accept" in capsys.readouterr().err


def test_accepting_beforehand_is_the_same(folder: Path, cache: Path, photos: Path) -> None:
    assert models("quantise", photos, "--accept", "--model-path", folder, "--cache-dir", cache, *IMPOSSIBLE) == 0
    variant = optimised(folder, cache)
    assert variant.precision == "int8"
    assert variant.gate is not None
    assert not variant.gate["met"]


@pytest.mark.parametrize("into_folder", [False, True])
def test_a_failure_leaves_the_calibration_before_it_in_service(
    folder: Path, cache: Path, photos: Path, into_folder: bool
) -> None:
    good, _ = quantise_model(folder, photos, cache=cache, gate=EASY, into_folder=into_folder)
    before, text = optimised(folder, cache), good.read_bytes()
    _, report = quantise_model(
        folder, photos, cache=cache, gate=Gate(90.0, 1.0), fallback="none", into_folder=into_folder
    )
    assert not report.verdict.met
    after = optimised(folder, cache)
    assert (after.path, after.gate, good.read_bytes()) == (before.path, before.gate, text)
    assert "failed its gate and is not used" in after.note
    quantise_model(folder, photos, cache=cache, gate=EASY, into_folder=into_folder)
    assert optimised(folder, cache).note == ""


def test_a_calibration_of_ones_own_goes_before_the_models_and_reset_undoes_it(
    folder: Path, cache: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model-path", folder, "--cache-dir", cache)
    quantise_model(folder, photos, cache=cache, gate=EASY, into_folder=True)
    shipped = optimised(folder, cache)
    assert shipped.note == ""
    assert models("quantise", photos, *flags, "--method", "max", "--min-sqnr", "1", "--min-agreement", "0") == 0
    told = capsys.readouterr().out
    assert "From its next start or reload on, the service builds the optimised variant of tiny from it" in told
    assert f"Undo it with: tessera models reset {folder} --cache-dir {cache}" in told
    own = optimised(folder, cache)
    assert own.path != shipped.path
    assert f"tessera models reset {folder}" in own.note
    assert models("reset", folder, "--cache-dir", cache) == 0
    assert "from the calibration in its folder" in capsys.readouterr().out
    assert optimised(folder, cache) == shipped
    assert models("reset", folder, "--cache-dir", cache) == 1
    assert "nothing to undo" in capsys.readouterr().err


def test_reset_puts_back_what_was_in_the_folder(
    folder: Path, cache: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = quantise_model(folder, photos, cache=cache, gate=EASY, into_folder=True)
    original = path.read_bytes()
    quantise_model(folder, photos, cache=cache, gate=EASY, method="max")
    for method in ("entropy", "max"):
        quantise_model(folder, photos, cache=cache, gate=EASY, into_folder=True, method=method)
        assert optimised(folder, cache).note == "", "what was put into the folder is what is served"
    assert path.read_bytes() != original
    assert models("reset", folder, "--cache-dir", cache) == 0
    assert f"put back: {path}" in capsys.readouterr().out
    assert path.read_bytes() == original


def test_the_bundled_model_is_quantised_and_reset_by_its_name(
    cache: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = read_package(BUNDLED)
    files = CalibrationFiles.of(package, cache)
    mine = dataclasses.replace(Calibration.load(package.calibration), method="mine")
    files.own.parent.mkdir(parents=True)
    mine.save(files.own)
    assert models("reset", "resnet50-imagenette", "--cache-dir", cache) == 0
    assert f"removed: {files.own}" in capsys.readouterr().out
    assert not files.own.exists()


def test_a_calibration_belongs_to_how_photos_are_prepared(folder: Path, cache: Path, photos: Path) -> None:
    quantise_model(folder, photos, cache=cache, gate=EASY)
    assert optimised(folder, cache).precision == "int8"
    description = folder / "model.toml"
    description.write_text(description.read_text() + "std = [0.5, 0.5, 0.5]\n", encoding="utf-8")
    assert optimised(folder, cache).precision == "fp32"


def test_the_verdict_survives_its_file_and_files_without_one_stay_as_they_are() -> None:
    text = (BUNDLED / "calibration.json").read_text(encoding="utf-8")
    bundled = Calibration.from_json(text)
    assert bundled.verdict is not None
    assert bundled.verdict.met
    assert bundled.to_json() == text
    for verdict in (None, Verdict(False, 96, 12.5, None, 30.0, 0.98)):
        judged = dataclasses.replace(bundled, verdict=verdict)
        assert Calibration.from_json(judged.to_json()) == judged


@pytest.mark.parametrize(
    "verdict", [None, {}, [], {"met": 1, "images": 1, "sqnr": 1, "agreement": 1, "least_sqnr": 1, "least_agreement": 1}]
)
def test_a_verdict_that_is_none_is_refused(verdict: object) -> None:
    document = json.loads((BUNDLED / "calibration.json").read_text(encoding="utf-8"))
    with pytest.raises(ModelError, match="verdict"):
        Calibration.from_json(json.dumps({**document, "verdict": verdict}))


def test_one_photo_proves_nothing(folder: Path, cache: Path, photos: Path) -> None:
    _, report = quantise_model(folder, photos, cache=cache, limit=1)
    assert not report.verdict.met
    assert "too few images" in str(report.verdict)
    assert optimised(folder, cache).precision == "fp32"


@pytest.mark.parametrize(
    "flags", [("--min-agreement", "2"), ("--min-sqnr", "nan"), ("--limit", "0"), ("--report", "/gone/report.json")]
)
def test_flags_are_checked_before_photos_are_read(
    folder: Path, cache: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = models("quantise", "no photos", "--model-path", folder, "--cache-dir", cache, *flags)
    except SystemExit as ended:
        code = ended.code
    assert code in (1, 2)
    assert "no folder of photos" not in capsys.readouterr().err


def test_what_could_not_be_kept_is_not_computed(folder: Path, tmp_path: Path, photos: Path) -> None:
    cache = tmp_path / "file"
    cache.write_text("no folder")
    stages: list[str] = []
    with pytest.raises(ModelError, match="Cannot create the cache folder"):
        quantise_model(folder, photos, cache=cache, progress=lambda stage, _: stages.append(stage))
    assert stages == []


def test_another_size_borrows_the_calibration_until_it_has_its_own(folder: Path, cache: Path, photos: Path) -> None:
    quantise_model(folder, photos, cache=cache, gate=EASY)
    usual, other = optimised(folder, cache), open_model(folder, cache=cache, sizes=[(48, 64)]).variants["optimised"]
    assert (other.precision, usual.precision) == ("int8", "int8")
    assert other.path != usual.path, "each size is a build of its own"
    assert "made on images of 32 x 32 pixels; for 48 x 64" in other.note
    assert f"tessera models quantise --model-path {folder} --size 48x64" in other.note
    assert "pixels" not in usual.note
    quantise_model(folder, photos, cache=cache, gate=EASY, size=(48, 64))
    own = open_model(folder, cache=cache, sizes=[(48, 64)]).variants["optimised"]
    assert "pixels" not in own.note
    assert optimised(folder, cache) == usual, "the size of the folder keeps what it has"
    assert models("reset", folder, "--cache-dir", cache, "--size", "48x64") == 0
    assert open_model(folder, cache=cache, sizes=[(48, 64)]).variants["optimised"] == other


def test_a_quantised_file_for_several_sizes_gives_what_onnx_runtime_gives(
    folder: Path, cache: Path, photos: Path
) -> None:
    quantise_model(folder, photos, cache=cache, gate=EASY)
    sizes: list[Size] = [32, 96, (48, 64)]
    model = open_model(folder, cache=cache, sizes=sizes)
    assert [each.size for each in (model.preprocessing, *model.others)] == sizes
    variant = model.variants["optimised"]
    with engine.load(variant.path, backend="cpu") as ours, engine.load(variant.path, backend="onnxruntime") as theirs:
        assert ours.describe().precision == "int8"
        for size in sizes:
            pixels = np.random.default_rng(0).integers(0, 256, (3, *sides(size), 3), np.uint8)
            with ours.at(*sides(size)) as here, theirs.at(*sides(size)) as there:
                wanted = there.run(pixels)
                assert np.linalg.norm(here.run(pixels) - wanted) <= 0.02 * np.linalg.norm(wanted)
    alone = open_model(folder, cache=cache, sizes=[96]).variants["optimised"]
    with engine.load(alone.path, backend="cpu") as of_one, engine.load(variant.path, backend="cpu") as of_all:
        pixels = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3), np.uint8)
        assert np.array_equal(of_one.run(pixels), of_all.at(96, 96).run(pixels)), "as a service of that size alone"
