"""The operator package around the kernels: TBE, shape inference, ONNX plugin, op info, build."""

from __future__ import annotations

import ast
import ctypes
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.engine.errors import ModelError
from tessera.models.ascend.custom_conv.tbe.geometry import Shape
from tessera.models.ascend.graphs import OWN_DOMAIN, OWN_OPERATOR
from tessera.models.ascend.operators import check_operator_package, family
from tests.unit.models.ascend.convolutions import PACKAGE, STUBS, shapes
from tests.unit.models.ascend.fake_cann import FAMILIES


@pytest.fixture(scope="session")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like CANN's toolkit: the stub headers, and empty libraries to link with."""
    folder = tmp_path_factory.mktemp("toolkit")
    (folder / "lib64").mkdir()
    (folder / "include").symlink_to(STUBS / "toolkit" / "include")
    for name in ("libgraph.so", "libregister.so"):
        command = ["c++", "-shared", "-x", "c++", "/dev/null", "-o", str(folder / "lib64" / name)]
        subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Shape inference and ONNX plugin, compiled against the stub headers."""
    library = tmp_path_factory.mktemp("glue") / "glue.so"
    folders = [STUBS / "toolkit" / "include", PACKAGE / "op_proto", PACKAGE / "onnx_plugin"]
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", *(f"-I{folder}" for folder in folders)]
    subprocess.run(["c++", *flags, str(STUBS / "run_glue.cpp"), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.origin.restype = loaded.type.restype = ctypes.c_char_p
    return loaded


def longs(values: tuple[int, ...]) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


@pytest.fixture(scope="module")
def package(toolkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built package, in a folder of another name than the example's."""
    target = tmp_path_factory.mktemp("vendors") / "kindred"
    environment = {"PATH": os.environ["PATH"], "ASCEND_TOOLKIT_HOME": str(toolkit)}
    subprocess.run([PACKAGE / "build.sh", target], check=True, env=environment, capture_output=True)
    return target


def test_the_package_builds_and_is_accepted_by_the_conversion(package: Path) -> None:
    for soc in ("Ascend310B1", "Ascend310P3", "Ascend310", "Ascend910A", "Ascend910B3", "Ascend910_9391"):
        check_operator_package(package, soc)
    kernels = package / "op_impl" / "ai_core" / "tbe" / "kindred_impl"
    assert {file.name for file in kernels.iterdir()} == {"__init__.py", "conv_bias_relu.py", "geometry.py"}


def test_a_renamed_package_is_refused(package: Path, tmp_path: Path) -> None:
    """FE makes the implementation's folder of the last part of ASCEND_CUSTOM_OPP_PATH, which has no links."""
    check_operator_package(package.parent / "." / package.name, "Ascend310B1")
    (tmp_path / "link").symlink_to(package)
    check_operator_package(tmp_path / "link", "Ascend310B1")
    renamed = Path(shutil.copytree(package, tmp_path / "tessera"))
    with pytest.raises(ModelError, match=r"tessera_impl.*renamed must be built anew"):
        check_operator_package(renamed, "Ascend310B1")


@pytest.mark.parametrize(("soc", "folder"), FAMILIES.items())
def test_families_are_those_of_the_platform_files(soc: str, folder: str) -> None:
    assert family(soc) == folder


def test_an_unknown_chip_has_no_family() -> None:
    for soc in ("Ascend911", "Ascend310X1", "Ascend910C", "ascend310"):
        with pytest.raises(ModelError, match=f"{soc} is not known"):
            family(soc)


def test_the_build_says_what_it_needs(tmp_path: Path) -> None:
    run = subprocess.run(
        [PACKAGE / "build.sh", tmp_path], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "source set_env.sh of CANN first" in run.stderr


def test_the_host_side_of_ascend_c_compiles() -> None:
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{STUBS / 'toolkit' / 'include'}"]
    subprocess.run(["c++", *flags, PACKAGE / "ascendc" / "conv_bias_relu_host.cpp"], check=True)


def test_kernel_and_host_agree_on_the_tiling_data() -> None:
    host = (PACKAGE / "ascendc" / "conv_bias_relu_host.cpp").read_text()
    kernel = (STUBS / "kernel_operator.h").read_text()
    fields = re.findall(r"TILING_DATA_FIELD_DEF\(uint32_t, (\w+)\)", host)
    declared = re.search(r"struct TilingData \{\s*uint32_t ([^;]+);", kernel)
    assert declared is not None
    assert fields == declared[1].split(", ")
    assert set(re.findall(r"data\.set_(\w+)\(", host)) == set(fields)
    assert set(re.findall(r"\bdata\.(\w+)", (PACKAGE / "ascendc" / "conv_bias_relu.cpp").read_text())) == set(fields)


@given(shape=shapes)
def test_shape_inference_is_that_of_the_geometry(glue: ctypes.CDLL, shape: Shape) -> None:
    result = longs((0,) * 4)
    pads = (shape.pad_top, shape.pad_bottom, shape.pad_left, shape.pad_right)
    x = (-1, shape.c1 * 16, shape.height, shape.width)
    filters, strides = (shape.cout1 * 16, shape.c1 * 16, 3, 3), (1, 1, shape.stride_h, shape.stride_w)
    assert glue.infer(longs(x), longs(filters), longs(strides), longs(pads), result)
    assert list(result) == [-1, shape.cout1 * 16, shape.out_height, shape.out_width]


def test_shape_inference_refuses_what_cannot_be(glue: ctypes.CDLL) -> None:
    result = longs((0,) * 4)
    good = [(1, 16, 5, 5), (16, 16, 3, 3), (1, 1, 1, 1), (0, 0, 0, 0)]
    assert glue.infer(*map(longs, good), result)
    for index, bad in ((0, (1, 32, 5, 5)), (0, (1, 16, 2, 5)), (2, (1, 1, 0, 1))):
        assert not glue.infer(*map(longs, [*good[:index], bad, *good[index + 1 :]]), result)


@given(strides=st.tuples(*[st.integers(1, 9)] * 2), pads=st.tuples(*[st.integers(0, 9)] * 4), style=st.integers(0, 3))
def test_the_plugin_turns_onnx_attributes_into_canns(
    glue: ctypes.CDLL, strides: tuple[int, ...], pads: tuple[int, ...], style: int
) -> None:
    def numbers(values: tuple[int, ...]) -> list[Any]:
        return [str(value) for value in values] if style & 1 else list(values)

    lists = {"pads": pads, "strides": strides}
    entries = [{"name": name, "ints": numbers(values), "type": 7} for name, values in lists.items()]
    if style & 2:
        entries = [dict(sorted(entry.items())) for entry in reversed(entries)]
    text = json.dumps({"attribute": entries}, indent=style or None)
    result = longs((0,) * 8)
    assert glue.parse(text.encode(), result)
    top, left, bottom, right = pads
    assert list(result) == [1, 1, *strides, top, bottom, left, right]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"attribute": [{"name": "pads", "ints": [1, 1, 1, 1]}]}',
        '{"attribute": [{"name": "pads", "ints": [1, 1]}, {"name": "strides", "ints": [1, 1]}]}',
        '{"attribute": [{"name": "pads", "i": 3}, {"name": "strides", "ints": [1, 1]}]}',
        '{"attribute": [{"name": "pads", "ints": [1, 1, 1, 1}, {"name": "strides", "ints": [1, 1',
    ],
)
def test_the_plugin_refuses_other_attributes(glue: ctypes.CDLL, text: str) -> None:
    assert not glue.parse(text.encode(), longs((0,) * 8))


def test_all_parts_speak_of_the_same_operator(glue: ctypes.CDLL) -> None:
    (name,) = info = json.loads((PACKAGE / "op_info.json").read_text())
    assert name == OWN_OPERATOR == glue.type().decode()
    assert glue.origin().decode() == f"{OWN_DOMAIN}::1::{OWN_OPERATOR}"
    described = info[name]
    proto = (PACKAGE / "op_proto" / "conv_bias_relu.h").read_text()
    for kind, key in (("INPUT", "input"), ("OUTPUT", "output")):
        declared = re.findall(rf"\.{kind}\((\w+),", proto)
        assert declared == [described[f"{key}{number}"]["name"] for number in range(len(declared))]
        assert f"{key}{len(declared)}" not in described
    assert re.findall(r"\.REQUIRED_ATTR\((\w+),", proto) == described["attr"]["list"].split(",")


def test_the_op_info_obeys_canns_rules() -> None:
    """Those of parse_ini_to_json.py in CANN's operator project."""
    for described in json.loads((PACKAGE / "op_info.json").read_text()).values():
        for key, entry in described.items():
            assert all(isinstance(value, str) for value in entry.values())
            if re.match(r"(input|output)\d", key):
                assert entry["paramType"] in ("required", "optional", "dynamic")
                assert entry["name"]
                assert entry["dtype"] in ("float16", "float32", "int8", "int32")
                assert entry["format"] in ("NC1HWC0", "FRACTAL_Z", "ND", "NCHW")
            if key.startswith("attr_"):
                assert entry["type"] in ("int", "float", "bool", "str", "listInt", "listFloat")
                assert entry["paramType"] in ("required", "optional")
                assert entry["value"]
            if "flag" in entry:
                assert entry["flag"] in ("true", "false")
        assert {f"attr_{name}" for name in described["attr"]["list"].split(",")} <= set(described)
        module = PACKAGE / "tbe" / f"{described['opFile']['value']}.py"
        assert f"def {described['opInterface']['value']}(" in module.read_text()


class Recorder:
    """Stands for a module of CANN: remembers calls, and gives something back that tells where it is from."""

    def __init__(self, calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> None:
        self.calls = calls

    def function(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> str:
            self.calls.append((name, arguments, options))
            return f"{name} {len(self.calls)}"

        return call


def test_the_tbe_operator_builds_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    made = Recorder(calls).function
    tvm = SimpleNamespace(placeholder=made("placeholder"), target=SimpleNamespace(cce=nullcontext))
    check = SimpleNamespace(check_op_params=lambda *_: lambda function: function)
    for name in ("REQUIRED_INPUT", "REQUIRED_OUTPUT", "REQUIRED_ATTR_LIST_INT", "KERNEL_NAME"):
        setattr(check, name, name)
    dsl = SimpleNamespace(auto_schedule=made("auto_schedule"), build=made("build"), vrelu=made("vrelu"))
    modules = {
        "tbe": SimpleNamespace(tvm=tvm),
        "tbe.common.utils": SimpleNamespace(para_check=check),
        "tbe.dsl": dsl,
        "tbe.dsl.compute.conv_compute": SimpleNamespace(conv=made("conv")),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "tessera.models.ascend.custom_conv.tbe.conv_bias_relu", raising=False)
    operator = importlib.import_module("tessera.models.ascend.custom_conv.tbe.conv_bias_relu")
    x, y = ({"ori_shape": (4, 64, 56, 56), "dtype": "float16"} for _ in range(2))
    filters, bias = {"ori_shape": (128, 64, 3, 3)}, {"ori_shape": (128,)}
    operator.conv_bias_relu(x, filters, bias, y, [1, 1, 2, 1], [0, 1, 2, 3], kernel_name="k")
    names = [name for name, _, _ in calls]
    assert names == ["placeholder", "placeholder", "placeholder", "conv", "vrelu", "auto_schedule", "build"]
    assert calls[0][1] == ((4, 4, 56, 56, 16),)
    assert calls[1][1] == ((36, 8, 16, 16),)
    assert calls[2][1] == ((128,),)
    assert all(options["dtype"] == "float16" for _, _, options in calls[:3])
    _, (image, weights), options = calls[3]
    assert (image, weights) == ("placeholder 1", "placeholder 2")
    parameters = options["para_dict"]
    assert parameters["bias_tensor"] == "placeholder 3"
    wanted = {
        "pad_h": [0, 1],
        "pad_w": [2, 3],
        "stride_h": 2,
        "stride_w": 1,
        "filter_h": 3,
        "c1_opt": 4,
        "cout1_opt": 8,
    }
    assert {key: parameters[key] for key in wanted} == wanted
    # What CANN's own Conv2D passes; see section 3.4 of the notes on Ascend in the operator's README.
    known = (
        "bias_tensor offset_w_tensor pad_h pad_w stride_h stride_w dilate_h dilate_w filter_h filter_w offset_x groups"
    )
    known += " res_dtype fusion_para kernel_name group enlarge c1_opt cout1_opt group_opt a_shape weight_fracz_shape"
    assert set(parameters) == {*known.split(), "weight_ori_shape_nchw"}
    assert calls[4][1] == ("conv 4",)
    assert calls[5][1] == ("vrelu 5",), "the ReLU is scheduled with the convolution"
    _, (schedule, config), _ = calls[6]
    assert schedule == "auto_schedule 6"
    assert config["tensor_list"] == ["placeholder 1", "placeholder 2", "placeholder 3", "vrelu 5"]
    assert config["name"] == "k"
    with pytest.raises(ValueError, match="same channels"):
        operator.conv_bias_relu(x, {"ori_shape": (128, 32, 3, 3)}, bias, y, [1, 1, 1, 1], [1, 1, 1, 1])
    sys.modules.pop("tessera.models.ascend.custom_conv.tbe.conv_bias_relu")


@pytest.mark.parametrize("file", sorted((PACKAGE / "tbe").glob("*.py")), ids=lambda path: path.name)
def test_the_tbe_files_are_python_3_7(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 7))


def test_the_readme_says_that_it_has_not_run_on_a_device() -> None:
    assert "has not run on a device" in (PACKAGE / "README.md").read_text()
