"""`tessera models convert` against stand-ins for CANN's tools that are as strict as the real ones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tessera import engine
from tessera.app.cli import main
from tessera.engine.errors import ModelError
from tessera.models.ascend.commands import Command, check_gears
from tessera.models.ascend.convert import Conversion, ConvertOptions, convert_model
from tessera.models.package import read_package
from tessera.models.quantise import quantise_model
from tessera.models.registry import open_model
from tests.unit.models.tiny import LABELS, tiny_folder, tiny_images

B1 = ConvertOptions("Ascend310B1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "tiny")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, cann_folder: Path) -> Conversion:
    """A conversion with the default options; nobody changes it."""
    folder = tmp_path_factory.mktemp("conversion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(cann_folder) + os.pathsep + os.environ["PATH"])
        return convert_model(read_package(tiny_folder(folder / "tiny")), folder / "library", B1)


def operator_package(folder: Path, family: str = "ascend310b") -> Path:
    """What the build of models/ascend/custom_conv installs, as far as ATC's search looks at it."""
    info = folder / f"op_impl/ai_core/tbe/config/{family}/aic-{family}-ops-info.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"ConvBiasRelu": {}}))
    (folder / f"op_impl/ai_core/tbe/{folder.name}_impl").mkdir()
    for library in ("op_proto/lib/linux/aarch64/libcust_op_proto.so", "framework/onnx/libcust_onnx_parsers.so"):
        (folder / library).parent.mkdir(parents=True)
        (folder / library).touch()
    return folder


def test_both_variants_are_made_and_can_be_opened(done: Conversion) -> None:
    assert done.folder.name == "tiny-Ascend310B1"
    assert done.missing == ()
    model = open_model(done.folder, target="ascend")
    assert {name: variant.precision for name, variant in model.variants.items()} == {
        "baseline": "fp16",
        "optimised": "fp16",
    }
    assert model.labels == LABELS
    assert [entry.name for entry in done.folder.parent.iterdir()] == [done.folder.name]
    inputs = {"aipp.cfg", "convert.sh", "labels.txt", "model.onnx", "model.toml"}
    assert {entry.name for entry in done.folder.iterdir()} == {*inputs, "ascend.json", "baseline.om", "optimised.om"}


def test_the_commands_are_what_they_should_be(done: Conversion) -> None:
    baseline, optimised = done.commands
    assert str(baseline) == (
        "atc --model=model.onnx --framework=5 --output=baseline --soc_version=Ascend310B1 --input_format=NCHW "
        "--input_shape=input:-1,3,32,32 --dynamic_batch_size=1,2,4,8,16 --output_type=FP32 --log=error "
        "--precision_mode=force_fp16"
    )
    assert set(optimised.arguments) - set(baseline.arguments) == {
        "--output=optimised",
        "--insert_op_conf=aipp.cfg",
        "--enable_small_channel=1",
    }


def test_the_record_names_every_file_with_its_hash(done: Conversion) -> None:
    folder = done.folder
    record = json.loads((folder / "ascend.json").read_text())
    assert record["soc"] == "Ascend310B1"
    assert set(record["outputs"]) == {"baseline.om", "optimised.om"}
    assert {"model.onnx", "aipp.cfg", "convert.sh"} <= set(record["inputs"])
    for name, entry in {**record["inputs"], **record["outputs"]}.items():
        payload = (folder / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(payload).hexdigest()
        assert entry["bytes"] == len(payload)
    weights = (folder.parents[1] / "tiny" / "weights.safetensors").read_bytes()
    assert record["source"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert [command["arguments"][0] for command in record["commands"]] == ["atc", "atc"]
    assert "soc_version: Ascend310B1" in record["reports"]["baseline.om"]


def test_the_converted_folder_still_serves_on_the_cpu(done: Conversion, source: Path, tmp_path: Path) -> None:
    images = tiny_images(3)
    answers = []
    for path in (source, done.folder):
        variant = open_model(path, cache=tmp_path / "cache", target="cpu").variants["optimised"]
        with engine.load(variant.path, backend="cpu") as session:
            answers.append(session.run(images))
    np.testing.assert_array_equal(answers[0], answers[1])


def test_one_batch_size_makes_a_static_shape(source: Path, tmp_path: Path, cann: Path) -> None:
    done = convert_model(read_package(source), tmp_path / "library", ConvertOptions("Ascend310P3", gears=(16,)))
    assert "--input_shape=input:16,3,32,32" in done.commands[0].arguments
    assert not [word for word in done.commands[0].arguments if word.startswith("--dynamic_batch_size")]


def test_int8_goes_through_amct(source: Path, tmp_path: Path, cann: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(37):
        Image.new("RGB", (40, 50), (number * 6, 90, 20)).save(photos / f"{number}.png")
    done = convert_model(read_package(source), tmp_path / "library", ConvertOptions("Ascend310B1", photos=photos))
    assert [command.tool for command in done.commands] == ["atc", "amct_onnx", "atc"]
    assert "--model=int8_deploy_model.onnx" in done.commands[2].arguments
    assert not [word for word in done.commands[2].arguments if word.startswith("--precision_mode")]
    assert sorted(entry.name for entry in (done.folder / "photos").iterdir()) == ["000.bin", "001.bin"]
    assert open_model(done.folder, target="ascend").variants["optimised"].precision == "int8"
    with pytest.raises(ModelError, match="at least 16"):
        convert_model(read_package(source), tmp_path / "b", ConvertOptions("Ascend310B1", photos=few(tmp_path / "few")))


def few(folder: Path) -> Path:
    folder.mkdir()
    Image.new("RGB", (40, 50)).save(folder / "only.png")
    return folder


def test_the_own_convolution_needs_its_package_on_the_search_path(source: Path, tmp_path: Path, cann: Path) -> None:
    package = operator_package(tmp_path / "vendors" / "tessera")
    options = ConvertOptions("Ascend310B1", operators=package)
    done = convert_model(read_package(source), tmp_path / "library", options)
    assert done.commands[1].variables == {"ASCEND_CUSTOM_OPP_PATH": str(package)}
    assert str(done.commands[1]).startswith(f"ASCEND_CUSTOM_OPP_PATH={package} atc --model=model-own-convolution.onnx")
    graph = onnx.load(done.folder / "model-own-convolution.onnx").graph
    assert [node.op_type for node in graph.node if node.domain == "tessera"] == ["ConvBiasRelu"] * 5
    with pytest.raises(ModelError, match=r"ascend310p.*custom_conv/README"):
        convert_model(read_package(source), tmp_path / "b", ConvertOptions("Ascend310P3", operators=package))
    with pytest.raises(ModelError, match="not for both"):
        convert_model(read_package(source), tmp_path / "b", ConvertOptions("Ascend310B1", (1, 2), tmp_path, package))


def test_a_search_path_that_is_set_stays_behind_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", "/theirs")
    command = Command("t", ("atc",), "x.om", {"ASCEND_CUSTOM_OPP_PATH": "/ours"})
    assert command.environment()["ASCEND_CUSTOM_OPP_PATH"] == "/ours:/theirs"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("fail", r"exit code 1(.|\n)*E40021: Failed to compile Op \[conv1\], UB overflow"),
        ("nothing", r"wrote no baseline\.om"),
        ("short", r"baseline\.om has 267 bytes, but its header says 268"),
    ],
)
def test_a_failed_conversion_leaves_nothing_and_tells_why(
    source: Path, tmp_path: Path, cann: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setenv("TESSERA_TEST_ATC", fault)
    with pytest.raises(ModelError, match=message):
        convert_model(read_package(source), tmp_path / "library", B1)
    assert list((tmp_path / "library").iterdir()) == []


def test_without_atc_the_folder_is_prepared_and_its_script_finishes_it(
    source: Path, tmp_path: Path, cann: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cann = os.environ["PATH"]
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    package = operator_package(tmp_path / "vendors" / "tessera")
    options = ConvertOptions("Ascend310B1", operators=package)
    done = convert_model(read_package(source), tmp_path / "library", options)
    assert done.missing == ("atc",)
    with pytest.raises(ModelError, match=r"no such file"):
        open_model(done.folder, target="ascend")
    assert convert_model(read_package(source), tmp_path / "library", options).folder == done.folder, "made anew"
    monkeypatch.setenv("PATH", with_cann)
    subprocess.run([done.folder / "convert.sh"], check=True, capture_output=True, cwd="/")
    assert open_model(done.folder, target="ascend").variants["baseline"].path.stat().st_size > 256
    with pytest.raises(ModelError, match="exists"):
        convert_model(read_package(source), tmp_path / "library", options)


@pytest.mark.parametrize("soc", ["310B1", "ascend310b1", "Ascend", "Ascend310B1 --log=debug", "../Ascend310B1"])
def test_a_chip_that_atc_cannot_know_is_refused(source: Path, tmp_path: Path, soc: str) -> None:
    with pytest.raises(ModelError, match="npu-smi info"):
        convert_model(read_package(source), tmp_path / "library", ConvertOptions(soc))


@pytest.mark.parametrize("gears", [(), (0,), (1, 1), (2049,), tuple(range(1, 102))])
def test_batch_sizes_outside_atcs_limits_are_refused(gears: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"different batch sizes|must be from 1 to 2048"):
        check_gears(gears)


def test_the_command_prints_the_lines_and_says_what_is_missing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    command = ["models", "convert", "--target", "Ascend310B1", f"--model-path={source}", f"--into={library}"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out.count("\natc --model=model.onnx") == 2
    assert "nothing was converted: atc" in said.err
    assert "convert.sh" in said.err


def test_the_command_converts_into_the_library_where_serving_finds_it(
    source: Path, tmp_path: Path, cann: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    assert main(["models", "convert", "--target=Ascend310B1", f"--model-path={source}", f"--cache-dir={cache}"]) == 0
    assert "tessera serve --backend ascend" in capsys.readouterr().out
    assert open_model(source, cache=cache, target="ascend").folder.name == "tiny-Ascend310B1"


def test_a_calibration_goes_along(source: Path, tmp_path: Path, cann: Path) -> None:
    """With the folder's calibration the CPU's optimised variant stays int8, though the graph lies in another file."""
    quantise_model(source, few(tmp_path / "few"), into_folder=True, accept=True, bias_correction=False, threads=1)
    done = convert_model(read_package(source), tmp_path / "library", B1)
    variant = open_model(done.folder, cache=tmp_path / "cache", target="cpu").variants["optimised"]
    assert variant.precision == "int8"
