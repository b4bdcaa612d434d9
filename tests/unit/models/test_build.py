"""Building into the cache: once, whole, the same every time, and by one process at a time."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from PIL import Image

from tessera.app.cli import main
from tessera.engine.errors import ModelError
from tessera.engine.quantize import Calibration, Gate
from tessera.engine.quantize.placement.floats import Gain
from tessera.models.quantise import quantise_model
from tessera.models.registry import list_models, open_model
from tests.unit.models.tiny import LABELS, tiny_folder, tiny_model
from tests.unit.quantize.networks import constants, nodes

ROOT = Path(__file__).resolve().parents[3]
EASY = Gate(1.0, 0.0)  # what a handful of photos reach depends on the CPU, and the gate has tests of its own


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "nested").mkdir()
    for number in range(6):
        image = Image.linear_gradient("L").resize((48, 40 + number)).rotate(30 * number).convert("RGB")
        image.save(folder / "nested" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    folder = tiny_folder(tmp_path_factory.mktemp("models") / "tiny")
    path, _ = quantise_model(folder, photos, into_folder=True, gate=EASY)
    assert path == folder / "calibration.json"
    return folder


def digests(cache: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(cache.rglob("*.onnx"))}


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_both_variants_are_built_and_described(calibrated: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, float]] = []
    model = open_model(calibrated, cache=tmp_path, progress=lambda stage, fraction: stages.append((stage, fraction)))
    assert (model.name, model.labels, list(model.variants)) == ("tiny", LABELS, ["baseline", "optimised"])
    baseline, optimised = model.variants["baseline"], model.variants["optimised"]
    assert (baseline.backend, baseline.precision, baseline.note) == ("onnxruntime", "fp32", "")
    assert (optimised.backend, optimised.precision, optimised.note) == ("cpu", "int8", "")
    assert nodes(onnx.load(baseline.path), "BatchNormalization")
    assert nodes(onnx.load(optimised.path), "QuantizeLinear")
    fractions = [fraction for _, fraction in stages]
    assert fractions == sorted(fractions)
    assert (fractions[0], stages[-1]) == (0.0, ("built", 1.0))
    record = json.loads((baseline.path.parent / "build.json").read_text(encoding="utf-8"))
    assert {name: entry["sha256"] for name, entry in record.items()} == digests(tmp_path)


def test_two_builds_give_the_same_bytes(calibrated: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        open_model(calibrated, cache=tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert len(digests(tmp_path / "a")) == 2


def test_second_start_builds_nothing(calibrated: Path, tmp_path: Path) -> None:
    first = open_model(calibrated, cache=tmp_path).variants["optimised"].path.stat()
    stages: list[str] = []
    second = open_model(calibrated, cache=tmp_path, progress=lambda stage, _: stages.append(stage))
    assert second.variants["optimised"].path.stat().st_mtime_ns == first.st_mtime_ns
    assert stages == ["checking weights", "built"]


def test_cpus_of_two_classes_share_a_cache_and_neither_serves_the_others_choice(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tensor takes multiplications, the other traffic: without vectors, products in fp32 cost nothing more."""
    folder = shutil.copytree(calibrated, tmp_path / "tiny")
    calibration = Calibration.load(folder / "calibration.json")
    products, traffic = list(calibration.ranges)[1:3]
    gains = dict.fromkeys(calibration.ranges, Gain(0.0, 0, 0, 0))
    gains |= {products: Gain(1e-3, 10**9, 0, 0), traffic: Gain(1e-3, 0, 10**6, 0)}
    dataclasses.replace(calibration, gains=gains, noise_limit=1.5e-3).save(folder / "calibration.json")
    paths = {}
    for level in ("scalar", None, "scalar"):
        if level:
            monkeypatch.setenv("TESSERA_ISA", level)
        else:
            monkeypatch.delenv("TESSERA_ISA")
        path = open_model(folder, cache=tmp_path / "cache").variants["optimised"].path
        assert paths.setdefault(level, path) == path
    kept = {
        level: {name for name in (products, traffic) if f"{name}.scale" not in constants(onnx.load(path))}
        for level, path in paths.items()
    }
    assert kept == {"scalar": {products}, None: {traffic}}


def test_damaged_cache_is_built_again(calibrated: Path, tmp_path: Path) -> None:
    path = open_model(calibrated, cache=tmp_path).variants["baseline"].path
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert open_model(calibrated, cache=tmp_path).variants["baseline"].path.read_bytes() == whole
    (path.parent / "build.json").write_text("[]", encoding="utf-8")
    assert open_model(calibrated, cache=tmp_path).variants["baseline"].path.read_bytes() == whole


BUILD = """
import sys, time
from pathlib import Path
from tessera.models.registry import open_model
folder, cache, here, other = map(Path, sys.argv[1:])
here.touch()
deadline = time.monotonic() + 60
while not other.exists() and time.monotonic() < deadline:
    time.sleep(0.001)
print(open_model(folder, cache=cache).variants["optimised"].path)
"""


def test_two_processes_at_once_do_not_collide(calibrated: Path, tmp_path: Path) -> None:
    flags = [tmp_path / "one", tmp_path / "two"]
    cache = tmp_path / "cache"
    workers = [start(BUILD, calibrated, cache, *order) for order in (flags, flags[::-1])]
    results = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], results
    assert results[0][0] == results[1][0]
    open_model(calibrated, cache=tmp_path / "alone")
    assert digests(cache) == digests(tmp_path / "alone")
    assert not list(cache.rglob("*.partial"))


KILLED = """
import os, signal, sys
from tessera.models.registry import open_model
def progress(stage, fraction):
    if stage == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
open_model(sys.argv[1], cache=sys.argv[2], progress=progress)
"""


@pytest.mark.parametrize("stage", ["reading weights", "quantising", "writing optimised.onnx"])
def test_killed_build_is_not_taken_for_whole(calibrated: Path, tmp_path: Path, stage: str) -> None:
    worker = start(KILLED, calibrated, tmp_path / "cache", stage)
    worker.communicate(timeout=120)
    assert worker.returncode == -9
    (summary,) = list_models(calibrated, cache=tmp_path / "cache")
    assert not summary.built
    # What a kill inside a write leaves behind.
    (build,) = (tmp_path / "cache" / "models").iterdir()
    (build / ".baseline.onnx.1.aa.partial").write_bytes(b"half")
    open_model(calibrated, cache=tmp_path / "cache")
    open_model(calibrated, cache=tmp_path / "alone")
    assert digests(tmp_path / "cache") == digests(tmp_path / "alone")
    assert not list(tmp_path.rglob("*.partial"))


FULL_DISK = """
import resource, sys
from tessera.engine.errors import ModelError
from tessera.models.registry import open_model
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    open_model(sys.argv[1], cache=sys.argv[2])
except ModelError as error:
    print(error)
"""


def test_full_disk_is_told_and_leaves_no_half_model(calibrated: Path, tmp_path: Path) -> None:
    worker = start(FULL_DISK, calibrated, tmp_path)
    output, errors = worker.communicate(timeout=120)
    assert output.startswith("Cannot write "), errors
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_unusable_cache_folder_is_told(calibrated: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(ModelError, match="Cannot create the cache folder"):
        open_model(calibrated, cache=tmp_path / "cache")


@pytest.mark.parametrize("damage", ["truncated", "junk", "empty", "missing"])
def test_damaged_weights_are_told(tmp_path: Path, damage: str) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes({"truncated": whole[:-100], "junk": b"\xff" * 500, "empty": b""}[damage])
    with pytest.raises(ModelError, match=r"weights\.safetensors"):
        open_model(folder, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_calibration_of_other_weights_is_refused(calibrated: Path, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny", seed=9)
    (folder / "calibration.json").write_bytes((calibrated / "calibration.json").read_bytes())
    with pytest.raises(ModelError, match="made for other weights"):
        open_model(folder, cache=tmp_path / "cache")


def test_labels_must_match_the_classes(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    (folder / "labels.txt").write_text("only\ntwo\n", encoding="utf-8")
    with pytest.raises(ModelError, match="2 labels"):
        open_model(folder, cache=tmp_path / "cache")


def bare_folder(folder: Path, *, zipped: bool) -> Path:
    folder.mkdir()
    payload = tiny_model().SerializeToString()
    (folder / ("net.onnx.gz" if zipped else "net.onnx")).write_bytes(gzip.compress(payload) if zipped else payload)
    (folder / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    return folder


def with_size(folder: Path) -> Path:
    (source,) = folder.glob("net.onnx*")
    (folder / "model.toml").write_text(
        f'name = "net"\nonnx = "{source.name}"\n[preprocessing]\nsize = 32\nresize = 36\n', encoding="utf-8"
    )
    return folder


def test_bare_folder_for_another_image_size_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not 224 x 224"):
        open_model(bare_folder(tmp_path / "net", zipped=False), cache=tmp_path / "cache")


@pytest.mark.parametrize("zipped", [True, False])
def test_onnx_folder_runs_in_fp32_until_it_is_calibrated(tmp_path: Path, photos: Path, zipped: bool) -> None:
    folder, cache = with_size(bare_folder(tmp_path / "net", zipped=zipped)), tmp_path / "cache"
    before = open_model(folder, cache=cache).variants["optimised"]
    assert (before.backend, before.precision) == ("cpu", "fp32")
    assert "tessera models quantise" in before.note
    metadata = {entry.key: entry.value for entry in onnx.load(before.path).metadata_props}
    assert metadata["tessera.mean"] == "[0.485, 0.456, 0.406]"
    quantise_model(folder, photos, cache=cache, limit=4, gate=EASY)
    assert not (folder / "calibration.json").exists()
    after = open_model(folder, cache=cache).variants["optimised"]
    assert (after.backend, after.precision, after.note) == ("cpu", "int8", "")
    assert nodes(onnx.load(after.path), "QuantizeLinear")


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x1f\x8b\x08junk", gzip.compress(b"not a graph"), gzip.compress(b"x" * 99)[:-9]],
    ids=["empty", "junk", "no graph", "cut off"],  # the compressed bytes hold the time, and workers must agree on names
)
def test_damaged_archives_are_told(tmp_path: Path, payload: bytes) -> None:
    folder = bare_folder(tmp_path / "net", zipped=True)
    (folder / "net.onnx.gz").write_bytes(payload)
    with pytest.raises(ModelError, match=r"net\.onnx\.gz"):
        open_model(folder, cache=tmp_path / "cache")


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    folder = bare_folder(tmp_path / "net", zipped=True)
    (folder / "net.onnx.gz").write_bytes(gzip.compress(bytes(80 << 20)))
    with pytest.raises(ModelError, match="unpacks to more than"):
        open_model(folder, cache=tmp_path / "cache")


def test_listing_shows_broken_models_with_their_problem(calibrated: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    tiny_folder(root / "good")
    tiny_folder(root / "broken")
    (root / "broken" / "model.toml").write_text("name = 1", encoding="utf-8")
    (root / "unrelated").mkdir()
    open_model(root / "good", cache=tmp_path / "cache")
    broken, good = list_models(root, cache=tmp_path / "cache")
    assert (good.name, good.labels, good.variants, good.built) == ("tiny", 5, ("baseline", "optimised"), True)
    assert broken.problem.endswith("'name' must be a text.")
    assert not broken.built
    with pytest.raises(ModelError, match="Cannot look for models"):
        list_models(tmp_path / "gone")


def test_command_writes_beside_the_weights(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, report = tiny_folder(tmp_path / "tiny"), tmp_path / "report.json"
    command = ["models", "quantise", "--model-path", str(folder), "--into-folder"]
    gate = ["--min-sqnr", "1", "--min-agreement", "0"]
    assert main([*command, str(photos), "--method", "max", "--report", str(report), *gate]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("6 photos in ")
    assert f"calibration: {folder / 'calibration.json'}" in shown
    calibration = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    assert (calibration["images"], calibration["method"]) == (6, "max, bias correction")
    told = json.loads(report.read_text(encoding="utf-8"))
    assert (told["met"], told["gate"]) == (True, {"sqnr": 1.0, "agreement": 0.0})
    assert told["sensitivities"][0]["noise"] >= told["sensitivities"][-1]["noise"] > 0


def test_command_names_photos_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, photos = tiny_folder(tmp_path / "tiny"), tmp_path / "photos"
    command = ["models", "quantise", "--model-path", str(folder), str(photos)]
    assert main(command) == 1
    assert "no folder of photos" in capsys.readouterr().err
    photos.mkdir()
    assert main(command) == 1
    (photos / "bad.jpg").write_bytes(b"no photo")
    assert main(command) == 1
    assert "Cannot decode the photo" in capsys.readouterr().err
