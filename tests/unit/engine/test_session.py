"""The Session interface, on a small classifier with folded normalisation."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tessera import engine
from tessera.engine.backends.cpu.session import CpuSession
from tessera.engine.graph.ir import Graph

CLASSES = 7
SIDE = 20


def classifier(path: Path, *, metadata: bool = True) -> Path:
    """conv 3x3 -> relu -> max-pool -> conv 1x1 + skip -> global average -> fully connected."""
    random = np.random.default_rng(7)
    weights = {
        "w1": random.normal(size=(24, 3, 3, 3)) * 0.2,
        "b1": random.normal(size=24),
        "w2": random.normal(size=(24, 24, 1, 1)) * 0.2,
        "w3": random.normal(size=(CLASSES, 24)),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], name="conv2"),
        helper.make_node("Add", ["c2", "p1"], ["a2"], name="add"),
        helper.make_node("GlobalAveragePool", ["a2"], ["g"], name="average"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["output"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        helper.set_model_props(model, {"tessera.mean": "[0.5, 0.4, 0.3]", "tessera.std": "[0.2, 0.25, 0.3]"})
    onnx.save(model, path)
    return path


def quantised(folder: Path) -> Path:
    model, out = classifier(folder / "float.onnx"), folder / "quantised.onnx"
    engine.quantize(model, [np.random.default_rng(1).normal(size=(4, 3, SIDE, SIDE)).astype(np.float32)], out)
    return out


@pytest.fixture(params=["cpu-fp32", "cpu-bf16", "cpu-int8", "onnxruntime"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> engine.Session:
    backend, _, precision = request.param.partition("-")
    path = quantised(tmp_path) if precision == "int8" else classifier(tmp_path / "model.onnx")
    return engine.load(path, backend=backend, threads=2, precision=precision or "auto")


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def normalised(images: np.ndarray) -> np.ndarray:
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])
    return np.ascontiguousarray(((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))


def test_pixels_and_normalised_floats_give_the_same_answer(session: engine.Session) -> None:
    images = pixels(5)
    np.testing.assert_array_equal(session.run(images), session.run(normalised(images)))


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 33])
def test_any_number_of_images_gives_each_its_own_answer(session: engine.Session, count: int) -> None:
    images = pixels(count)
    together = session.run(images)
    assert together.shape == (count, CLASSES)
    assert together.dtype == np.float32
    for index in {0, count // 2, count - 1}:
        np.testing.assert_allclose(session.run(images[index : index + 1])[0], together[index], rtol=1e-5, atol=1e-5)


def test_slices_and_foreign_layouts_are_read_correctly(session: engine.Session) -> None:
    images = pixels(8)
    expected = session.run(images)
    np.testing.assert_array_equal(session.run(images[::2]), session.run(np.ascontiguousarray(images[::2])))
    np.testing.assert_array_equal(session.run(np.asfortranarray(images)), expected)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((1, 3, SIDE, SIDE), np.float64), "float64"),
        (np.zeros((0, 3, SIDE, SIDE), np.float32), "N >= 1"),
        (np.zeros((1, 3, SIDE, SIDE + 1), np.float32), r"\[N, 3, 20, 20\] with N >= 1, not \[1, 3, 20, 21\]"),
        (np.zeros((SIDE, SIDE, 3), np.uint8), r"\[N, 20, 20, 3\]"),
        (np.zeros((1, 3, SIDE, SIDE), np.uint8), r"\[N, 20, 20, 3\]"),
        ([[1.0]], "list"),
    ],
)
def test_wrong_input_is_named(session: engine.Session, bad: np.ndarray, says: str) -> None:
    with pytest.raises(engine.InputError, match=says):
        session.run(bad)


def test_concurrent_runs_do_not_mix(session: engine.Session) -> None:
    batches = [pixels(1 + seed % 4, seed) for seed in range(24)]
    expected = [session.run(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        for actual, wanted in zip(pool.map(session.run, batches), expected, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


def test_the_gil_is_free_while_a_batch_runs(tmp_path: Path) -> None:
    """Another thread makes progress during one long call."""
    session = engine.load(classifier(tmp_path / "model.onnx"), backend="cpu", threads=1)
    images = pixels(3000)
    started, finished = threading.Event(), threading.Event()

    def run() -> None:
        started.set()
        session.run(images)
        finished.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    ticks = 0
    while not finished.is_set():
        ticks += 1
    thread.join()
    # With the GIL held this loop could not turn between the start and the end of the call.
    assert ticks > 1000


def test_a_loaded_model_leaves_nothing_of_its_file_in_memory(tmp_path: Path) -> None:
    path = classifier(tmp_path / "model.onnx")
    gc.collect()
    gc.disable()  # what only a collection frees would stay for as long as none comes
    try:
        with CpuSession(path, threads=1, precision="auto"):
            assert not [graph for graph in gc.get_objects() if isinstance(graph, Graph)]
    finally:
        gc.enable()


def test_describe_names_what_runs(session: engine.Session) -> None:
    info = session.describe()
    assert info.inputs == (engine.TensorSpec("input", (None, 3, SIDE, SIDE), "float32"),)
    assert info.outputs[0].shape == (None, CLASSES)
    assert info.threads == 2
    assert info.normalises
    assert info.macs == 24 * 27 * SIDE * SIDE + 24 * 24 * (SIDE // 2) ** 2 + 24 * CLASSES


def test_profile_accounts_for_every_convolution(session: engine.Session) -> None:
    rows = session.profile(pixels(4), runs=3)
    assert sum(row.macs for row in rows) >= 4 * 24 * 27 * SIDE * SIDE
    assert all(row.milliseconds >= 0 and row.peak_share >= 0 for row in rows)
    assert {"conv1", "conv2"} <= {row.name for row in rows} or session.describe().backend == "onnxruntime"
    with pytest.raises(engine.InputError, match="at least one run"):
        session.profile(pixels(1), runs=0)


def test_a_trace_has_a_slice_of_every_layer_that_a_profile_has(session: engine.Session) -> None:
    slices, rows = session.trace(pixels(4)), session.profile(pixels(4), runs=1)
    assert {piece.name for piece in slices} == {row.name for row in rows}
    assert [piece.start for piece in slices] == sorted(piece.start for piece in slices)
    assert slices[0].start == 0
    assert all(piece.seconds >= 0 for piece in slices)


def test_a_trace_tells_what_every_thread_did(tmp_path: Path) -> None:
    with engine.load(quantised(tmp_path), backend="cpu", threads=2) as session:
        slices = session.trace(pixels(6))
    own = [piece for piece in slices if not piece.helping]
    for thread in (0, 1):
        mine = [piece for piece in own if piece.thread == thread]
        assert {piece.name for piece in mine} == {piece.name for piece in own}
        for before, after in pairwise(mine):
            assert after.start >= before.start + before.seconds - 1e-9, "a thread does one thing at a time"


def test_a_closed_session_says_so(session: engine.Session) -> None:
    with session:
        session.run(pixels(1))
    session.close()
    with pytest.raises(engine.BackendUnavailableError, match="closed"):
        session.run(pixels(1))


def test_pixels_need_a_model_that_folds_normalisation(tmp_path: Path) -> None:
    path = classifier(tmp_path / "plain.onnx", metadata=False)
    for backend in ("cpu", "onnxruntime"):
        with engine.load(path, backend=backend) as session:
            assert not session.describe().normalises
            with pytest.raises(engine.InputError, match="uint8"):
                session.run(pixels(1))


def test_load_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    path = classifier(tmp_path / "model.onnx")
    with pytest.raises(engine.ModelError, match="no model file"):
        engine.load(tmp_path / "absent.onnx")
    with pytest.raises(ValueError, match="auto, cpu, onnxruntime or ascend"):
        engine.load(path, backend="cuda")
    with pytest.raises(ValueError, match="int8, bf16 or fp32"):
        engine.load(path, precision="fp8")
    with pytest.raises(ValueError, match="at least 1"):
        engine.load(path, threads=0)
    with pytest.raises(engine.ModelError, match="not quantised"):
        engine.load(path, backend="cpu", precision="int8")
    with pytest.raises(engine.ModelError, match=r"no \.om file.*tessera models convert"):
        engine.load(path, backend="ascend")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(path.read_bytes()[:500])
    for backend in ("auto", "cpu", "onnxruntime"):
        with pytest.raises(engine.ModelError):
            engine.load(broken, backend=backend)


def test_metadata_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    model = onnx.load(classifier(tmp_path / "model.onnx"))
    for props in (
        {"tessera.mean": "[0.5]"},
        {"tessera.mean": "[0]", "tessera.std": "[0]"},
        {"tessera.mean": "x", "tessera.std": "[1]"},
    ):
        del model.metadata_props[:]
        helper.set_model_props(model, props)
        onnx.save(model, tmp_path / "odd.onnx")
        with pytest.raises(engine.ModelError, match=r"tessera\.mean"):
            CpuSession(tmp_path / "odd.onnx", 1, "auto")
