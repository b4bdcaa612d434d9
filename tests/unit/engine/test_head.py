"""Where scores come from: maps whose mean is the score, of every backend, and networks that have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tessera import engine
from tessera.engine.graph.reader import read_model
from tessera.engine.head import find_head
from tests.unit.engine.test_session import CLASSES, SIDE, classifier, normalised, pixels, quantised

RUNS = [("cpu", "fp32"), ("cpu", "bf16"), ("cpu", "int8"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]


def open_session(folder: Path, backend: str, precision: str) -> engine.Session:
    path = quantised(folder) if precision == "int8" else classifier(folder / "model.onnx")
    asked = precision if backend == "cpu" else "auto"
    return engine.load(path, backend=backend, threads=2, precision=asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(("backend", "precision"), RUNS)
@pytest.mark.parametrize("count", [1, 2, 19])
def test_each_score_is_its_bias_and_the_mean_of_its_map(
    tmp_path: Path, backend: str, precision: str, count: int
) -> None:
    session = open_session(tmp_path, backend, precision)
    assert session.describe().explains
    images = pixels(count)
    top = [index % (CLASSES + 1) for index in range(1, count + 1)]
    scores, explained = session.explain(images, top)
    np.testing.assert_allclose(scores, session.run(images), rtol=1e-6, atol=1e-5)
    for image, (wanted, maps) in enumerate(zip(top, explained, strict=True)):
        if wanted == 0:
            assert maps is None
            continue
        assert maps is not None
        assert maps.values.shape == (wanted, SIDE // 2, SIDE // 2)
        assert maps.classes.tolist() == (-scores[image]).argsort(kind="stable")[:wanted].tolist()
        np.testing.assert_allclose(
            maps.bias + maps.values.mean((1, 2)), scores[image][maps.classes], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_maps_are_what_the_network_itself_pools_times_its_weights(tmp_path: Path, backend: str, precision: str) -> None:
    """Against ONNX Runtime's features of the same file. What is spread evenly, because of rounding, is little."""
    path = quantised(tmp_path) if precision == "int8" else classifier(tmp_path / "model.onnx")
    head = find_head(read_model(path))
    assert head is not None
    images = pixels(5)
    features = pooled(path, head.features, images)
    asked = precision if backend == "cpu" else "auto"
    _, explained = engine.load(path, backend=backend, threads=2, precision=asked).explain(  # type: ignore[arg-type]
        images, [CLASSES] * 5
    )
    for image, maps in enumerate(explained):
        assert maps is not None
        expected = head.maps(features[image], maps.classes)
        off = (maps.values - expected) / np.abs(expected).max()
        spread = off.mean((1, 2), keepdims=True)
        assert float(np.abs(spread).max()) <= {"fp32": 1e-5, "bf16": 1e-2, "int8": 3e-2}[precision]
        assert float(np.abs(off - spread).max()) <= {"fp32": 1e-5, "bf16": 2e-2, "int8": 1e-5}[precision]


def pooled(path: Path, value: str, images: np.ndarray) -> np.ndarray:
    """A value of a model's file, as ONNX Runtime computes it."""
    model = onnx.load(path)
    model.graph.output.extend([onnx.ValueInfoProto(name=value)])
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([value], {"input": normalised(images)})[0])


def test_the_weights_are_those_of_the_linear_layer(tmp_path: Path) -> None:
    path = classifier(tmp_path / "model.onnx")
    head = find_head(read_model(path))
    assert head is not None
    (stored,) = (array for array in onnx.load(path).graph.initializer if array.name == "w3")
    np.testing.assert_array_equal(head.weights, numpy_helper.to_array(stored))


def ending(path: Path, *nodes: onnx.NodeProto, classes: int = CLASSES) -> Path:
    """A network of one convolution and these nodes, which read "x", [N, 8, 10, 10], and write "output"."""
    random = np.random.default_rng(3)
    weights = {
        "w": random.normal(size=(8, 3, 1, 1)),
        "fc": random.normal(size=(8, CLASSES)),
        "again": random.normal(size=(CLASSES, CLASSES)),
        "b": random.normal(size=CLASSES),
        "filters": random.normal(size=(CLASSES, 8, 1, 1)),
        "whole": random.normal(size=(800, CLASSES)),
    }
    used = {name for node in nodes for name in node.input} | {"w"}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["x"]), *nodes],
        "ending",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 10, 10])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


POOL = helper.make_node("GlobalAveragePool", ["x"], ["p"])
FLAT = helper.make_node("Flatten", ["p"], ["f"])
EXPLAINED = {
    "matmul and add": [
        POOL,
        FLAT,
        helper.make_node("MatMul", ["f", "fc"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["output"]),
    ],
    "mean over height and width": [
        helper.make_node("ReduceMean", ["x"], ["f"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["f", "fc", "b"], ["output"]),
    ],
    "a convolution": [
        POOL,
        helper.make_node("Conv", ["p", "filters"], ["c"]),
        helper.make_node("Flatten", ["c"], ["output"]),
    ],
}
UNEXPLAINED = {
    "a product over all pixels": [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "whole"], ["output"]),
    ],
    "probabilities": [
        *(POOL, FLAT, helper.make_node("Gemm", ["f", "fc"], ["g"])),
        helper.make_node("Softmax", ["g"], ["output"], axis=1),
    ],
    "two layers": [
        *(POOL, FLAT, helper.make_node("Gemm", ["f", "fc"], ["g"]), helper.make_node("Relu", ["g"], ["r"])),
        helper.make_node("Gemm", ["r", "again"], ["output"]),
    ],
    "scores cut at zero": [
        *(POOL, FLAT, helper.make_node("Gemm", ["f", "fc"], ["g"])),
        helper.make_node("Relu", ["g"], ["output"]),
    ],
    "a way around the pooling": [
        *(POOL, FLAT, helper.make_node("Gemm", ["f", "fc"], ["g"]), helper.make_node("Flatten", ["x"], ["y"])),
        helper.make_node("MatMul", ["y", "whole"], ["h"]),
        helper.make_node("Add", ["g", "h"], ["output"]),
    ],
}


@pytest.mark.parametrize("backend", ["cpu", "onnxruntime"])
@pytest.mark.parametrize("form", EXPLAINED)
def test_heads_of_many_forms_are_explained(tmp_path: Path, backend: str, form: str) -> None:
    session = engine.load(ending(tmp_path / "m.onnx", *EXPLAINED[form]), backend=backend, threads=1)
    x = np.random.default_rng(0).normal(size=(3, 3, 10, 10)).astype(np.float32)
    assert session.describe().explains
    scores, explained = session.explain(x, [CLASSES] * 3)
    head = find_head(read_model(tmp_path / "m.onnx"))
    assert head is not None
    for image, maps in enumerate(explained):
        assert maps is not None
        np.testing.assert_allclose(
            maps.bias + maps.values.mean((1, 2)), scores[image][maps.classes], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("backend", ["cpu", "onnxruntime"])
@pytest.mark.parametrize("form", UNEXPLAINED)
def test_other_endings_say_that_they_cannot_be_explained(tmp_path: Path, backend: str, form: str) -> None:
    session = engine.load(ending(tmp_path / "m.onnx", *UNEXPLAINED[form]), backend=backend, threads=1)
    x = np.zeros((1, 3, 10, 10), np.float32)
    session.run(x)
    assert not session.describe().explains
    with pytest.raises(engine.ModelError, match="global average pooling and one linear layer"):
        session.explain(x, [1])


def test_a_file_that_changed_under_the_session_explains_nothing(tmp_path: Path) -> None:
    path = classifier(tmp_path / "model.onnx")
    session = engine.load(path, backend="onnxruntime", threads=1)
    assert session.describe().explains
    path.write_bytes(path.read_bytes())
    with pytest.raises(engine.ModelError, match="not the file that was loaded"):
        session.prepare_explaining()
    path.unlink()
    with pytest.raises(engine.ModelError, match="not the file that was loaded"):
        session.prepare_explaining()
    session.run(pixels(1))


def test_weights_in_a_file_beside_the_model_are_found(tmp_path: Path) -> None:
    model = onnx.load(classifier(tmp_path / "model.onnx"))
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    together = engine.load(tmp_path / "model.onnx", backend="onnxruntime", threads=1)
    apart = engine.load(tmp_path / "apart.onnx", backend="onnxruntime", threads=1)
    (_, [expected]), (_, [maps]) = (session.explain(pixels(1), [3]) for session in (together, apart))
    assert expected is not None
    assert maps is not None
    np.testing.assert_array_equal(maps.values, expected.values)


@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_a_closed_session_explains_nothing(tmp_path: Path, backend: str, precision: str) -> None:
    session = open_session(tmp_path, backend, precision)
    session.explain(pixels(1), [1])
    session.close()
    with pytest.raises(engine.BackendUnavailableError, match="closed"):
        session.explain(pixels(1), [1])
