"""Model folders with .om files for Ascend: read, found, and told about when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tessera.engine.backends import BACKENDS
from tessera.engine.backends.ascend.backend import AscendBackend
from tessera.engine.errors import BackendUnavailableError, ModelError
from tessera.engine.normalisation import Normalisation
from tessera.models.cache import library_folder
from tessera.models.package import OfflineModels, read_package
from tessera.models.registry import list_models, open_model
from tests.servers import tessera
from tests.unit.models.ascend.fake_cann import write_om
from tests.unit.models.tiny import LABELS, MEAN, STD, tiny_folder, tiny_model

ASCEND = """
[ascend]
soc = "Ascend310B1"
baseline = "baseline.om"
optimised = "optimised.om"
optimised_precision = "int8"
"""


def converted_folder(folder: Path, name: str = "tiny", ascend: str = ASCEND) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(tiny_model().SerializeToString())
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    for file in ("baseline.om", "optimised.om"):
        write_om(folder / file, b"for nobody")
    text = f'name = "{name}"\nonnx = "model.onnx"\n[preprocessing]\nsize = 32\nresize = 32\n{ascend}'
    (folder / "model.toml").write_text(text, encoding="utf-8")
    return folder


def test_both_variants_are_the_om_files(tmp_path: Path) -> None:
    folder = converted_folder(tmp_path / "tiny")
    model = open_model(folder, cache=tmp_path / "cache", target="ascend")
    assert list(model.variants) == ["baseline", "optimised"]
    assert [variant.path.name for variant in model.variants.values()] == ["baseline.om", "optimised.om"]
    assert [variant.precision for variant in model.variants.values()] == ["fp16", "int8"]
    for variant in model.variants.values():
        assert variant.backend == "ascend"
        assert variant.graph == folder / "model.onnx"
        assert (variant.mean, variant.std) == (MEAN, STD)
    assert not (tmp_path / "cache").exists(), "nothing is built for the CPU"


def test_the_same_folder_serves_on_the_cpu(tmp_path: Path) -> None:
    folder = converted_folder(tmp_path / "tiny")
    for target in ("cpu", "auto"):
        model = open_model(folder, cache=tmp_path / "cache", target=target)  # type: ignore[arg-type]
        assert model.variants["baseline"].backend == "onnxruntime"


def test_auto_takes_ascend_where_there_is_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKENDS["ascend"], "available", lambda: True)
    assert open_model(converted_folder(tmp_path / "a"), target="auto").variants["optimised"].backend == "ascend"
    plain = open_model(tiny_folder(tmp_path / "b"), cache=tmp_path / "cache", target="auto")
    assert plain.variants["optimised"].backend == "cpu"


def test_a_device_is_what_the_driver_shows(tmp_path: Path) -> None:
    (tmp_path / "davinci_manager").touch()
    assert not AscendBackend(tmp_path).available()
    (tmp_path / "davinci0").touch()
    assert AscendBackend(tmp_path).available()


def test_a_model_finds_its_own_conversion_in_the_library(tmp_path: Path) -> None:
    library = library_folder(tmp_path)
    source = tiny_folder(tmp_path / "tiny")
    with pytest.raises(ModelError, match="tessera models convert --target Ascend310B1 --model-path"):
        open_model(source, cache=tmp_path, target="ascend")
    converted_folder(library / "other-Ascend310B1", name="other")
    with pytest.raises(ModelError, match="tessera models convert"):
        open_model(source, cache=tmp_path, target="ascend")
    folder = converted_folder(library / "tiny-Ascend310B1")
    assert open_model(source, cache=tmp_path, target="ascend").folder == folder
    converted_folder(library / "tiny-Ascend310P3", ascend=ASCEND.replace("310B1", "310P3"))
    with pytest.raises(ModelError, match=r"several chips.*Ascend310B1: .*Ascend310P3: "):
        open_model(source, cache=tmp_path, target="ascend")


def test_a_missing_om_file_is_named(tmp_path: Path) -> None:
    folder = converted_folder(tmp_path / "tiny")
    (folder / "optimised.om").unlink()
    with pytest.raises(ModelError, match=r"optimised\.om.*Convert the model again"):
        open_model(folder, target="ascend")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[ascend]\nsoc = "Ascend310B1"\nbaseline = "baseline.om"', r"'ascend\.optimised' is missing"),
        (ASCEND.replace("Ascend310B1", "310B1; rm -rf"), r"'ascend\.soc' must be a chip as ATC names it"),
        (ASCEND.replace('"baseline.om"', '"../baseline.om"'), r"'ascend\.baseline' must name a file"),
        (ASCEND.replace("int8", "fp32"), r"'ascend\.optimised_precision' must be one of fp16, int8"),
        (ASCEND + "gears = 3\n", r"'ascend\.gears' is not a known key"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_package(converted_folder(tmp_path / "tiny", ascend=table))


def test_the_graph_must_be_there_as_onnx(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    with (folder / "model.toml").open("a", encoding="utf-8") as file:
        file.write(ASCEND)
    with pytest.raises(ModelError, match=r"'onnx' must name the \.onnx file"):
        read_package(folder)


def test_the_listing_knows_the_chip(tmp_path: Path) -> None:
    converted_folder(tmp_path / "tiny")
    (summary,) = list_models(tmp_path, cache=tmp_path / "cache")
    assert summary.soc == "Ascend310B1"
    assert read_package(tmp_path / "tiny").ascend == OfflineModels(
        "Ascend310B1", tmp_path / "tiny" / "baseline.om", tmp_path / "tiny" / "optimised.om", "int8"
    )


def test_serving_without_a_conversion_says_what_to_do(tmp_path: Path) -> None:
    missing = tessera("serve", "--port", "0", "--backend", "ascend", "--cache-dir", str(tmp_path))
    assert missing.returncode == 1
    assert "tessera models convert --target Ascend310B1" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_the_session_says_what_is_missing(tmp_path: Path) -> None:
    from tessera import engine

    variant = open_model(converted_folder(tmp_path / "tiny"), target="ascend").variants["baseline"]
    with pytest.raises(BackendUnavailableError, match=r"libascendcl\.so"):
        engine.load(variant.path, backend="ascend", graph=variant.graph, normalisation=Normalisation(MEAN, STD))
