"""The real 1000-class network, whole: same answer as ONNX Runtime, and fused down to its convolutions."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tessera.engine.graph.ir import Graph
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import read_model
from tessera.engine.graph.reference import run_reference
from tests.shared_data import SHARED_DATA, requires_shared_data
from tests.unit.graph.onnx_models import normal, ops

pytestmark = requires_shared_data


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imagenet") / "resnet50.onnx"
    with gzip.open(SHARED_DATA / "resnet50-imagenet" / "resnet50.onnx.gz") as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return path


@pytest.fixture(scope="module")
def lowered(model_path: Path) -> Graph:
    return lower(read_model(model_path))


def test_nothing_but_convolutions_and_pools_is_left(lowered: Graph) -> None:
    counts = {op: ops(lowered).count(op) for op in set(ops(lowered))}
    assert counts == {"Conv": 54, "MaxPool": 1, "GlobalAveragePool": 1, "Flatten": 1}
    assert sum(bool(node.inputs[3]) for node in lowered.nodes if node.op == "Conv") == 16
    assert sum(node.attrs["clip"] == (0.0, float("inf")) for node in lowered.nodes if node.op == "Conv") == 49
    assert lowered.values["input"].shape == (None, 3, 224, 224)
    assert lowered.values["output"].shape == (None, 1000)


def test_lowered_network_answers_as_onnx_runtime_does(model_path: Path, lowered: Graph) -> None:
    image = normal(1, 3, 224, 224)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": image})
    actual = run_reference(lowered, {"input": image})["output"]
    assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


def test_file_is_read_as_its_exporter_wrote_it(model_path: Path) -> None:
    graph = read_model(model_path)
    assert graph.opset == 17
    assert len(graph.nodes) == 53 + 53 + 49 + 16 + 4
    assert json.dumps([node.attrs for node in graph.nodes])
