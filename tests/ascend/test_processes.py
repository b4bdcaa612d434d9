"""The backend in processes of its own: as users load it, under sanitizers, and at the end of the interpreter."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.ascend.conftest import NORMALISATION
from tests.ascend.double_builds import NAME, build
from tests.ascend.omfile import write_om
from tests.servers import environment

RUN = """
import sys, numpy, engine
session = engine.load(sys.argv[1])
print(session.describe().backend, session.run(numpy.zeros((3, 32, 32, 3), numpy.uint8)).shape)
"""


def small_model() -> onnx.ModelProto:
    """Convolution, ReLU, average and classifier on images of 8 x 8: sanitizers are slow."""
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(4, 3, 3, 3)), "f": random.normal(size=(2, 4)), "b": random.normal(size=2)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["l"]),
        helper.make_node("Gemm", ["l", "f", "b"], ["y"], transB=1),
    ]
    image, scores = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 3, 8, 8]), ("y", ["N", 2]))
    )
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", [image], [scores], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def python(*arguments: str, before: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, *arguments],
        env=environment(**variables),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def report_of(path: Path) -> dict[str, object]:
    report: dict[str, object] = json.loads(path.read_text())
    return report


def test_the_library_is_found_where_set_env_puts_it(pixel_om: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = python(
        "-c", RUN + "session.close()", str(pixel_om), LD_LIBRARY_PATH=str(build()), ACL_DOUBLE_REPORT=str(report)
    )
    assert (done.returncode, done.stdout) == (0, "ascend (3, 5)\n"), done.stderr
    assert done.stderr == ""
    account = report_of(report)
    assert account["violations"] == account["finalised"] == 0
    assert isinstance(account["live"], dict)
    assert not any(account["live"].values())


@pytest.mark.parametrize("ending", ["", "import os; os.kill(os.getpid(), 2)"])
def test_the_end_of_the_interpreter_calls_nothing(ending: str, pixel_om: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = python("-c", RUN + ending, str(pixel_om), LD_LIBRARY_PATH=str(build()), ACL_DOUBLE_REPORT=str(report))
    assert done.returncode in (0, -2), done.stderr
    assert "violation" not in done.stderr
    if report.exists():
        assert report_of(report)["finalised"] == 0


@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
def test_sanitizers_find_nothing(sanitizer: str, tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "small.onnx")
    model = write_om(tmp_path / "small.onnx", tmp_path / "small.om", pixels=NORMALISATION)
    runtime = subprocess.run(["gcc", f"-print-file-name=lib{sanitizer}.so"], capture_output=True, text=True, check=True)
    library = Path(runtime.stdout.strip())
    assert library.is_absolute(), f"gcc has no {library}"
    report = tmp_path / "report.json"
    done = python(
        "-m",
        "tests.ascend.exercise",
        str(build(sanitizer) / NAME),
        str(model),
        # gcc's older TSan does not find room for its shadow memory among randomised addresses.
        before=("setarch", platform.machine(), "--addr-no-randomize"),
        LD_PRELOAD=str(library),
        ACL_DOUBLE_DEVICES="2",
        ACL_DOUBLE_REPORT=str(report),
        ASAN_OPTIONS="detect_leaks=0",  # the double keeps its own account; Python never frees all it has
        TSAN_OPTIONS="ignore_noninstrumented_modules=1:halt_on_error=1",
        OPENBLAS_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "Sanitizer" not in done.stderr
    account = report_of(report)
    assert account["violations"] == 0, account
    assert isinstance(account["live"], dict)
    assert not any(account["live"].values()), account
