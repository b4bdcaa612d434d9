"""A model as other tools write it, added with the real command and served: what a client sees of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from tessera.models.preprocessing.transform import Preprocessing
from tests.servers import ServerProcess, tessera
from tests.unit.models.classifiers import CHANNELS, CLASSES, GEMM, SIZE, classifier, right_logits
from tests.unit.models.families import vision_transformer
from tests.unit.models.tiny import LABELS

VARIANTS = ("baseline", "optimised")


def traced() -> onnx.ModelProto:
    """Batch 1 in the input and in a Reshape, open height and width, a Softmax at the end."""
    return classifier(
        [helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)],
        ("probabilities",),
        head=[helper.make_node("Reshape", ["mean", "target"], ["flat"]), *GEMM],
        constants={"target": np.array([1, CHANNELS])},
        batch=1,
        size=("height", "width"),
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def add(model: onnx.ModelProto, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    onnx.save(model, folder / "net.onnx")
    return tessera("models", "add", str(folder / "net.onnx"), "--into", str(folder / "library"), *flags)


def test_probabilities_are_the_networks_own_and_tensors_its_logits(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbf" + "".join(f"{label}\r\n" for label in LABELS).encode())
    size = ("--size", str(SIZE), "--resize", str(SIZE))
    result = add(traced(), tmp_path, "--labels", str(tmp_path / "labels.txt"), *size)
    assert (result.returncode, result.stderr) == (0, "")
    pixels = np.asarray(Image.open(photo))[np.newaxis]
    logits = right_logits(pixels, Preprocessing().mean, Preprocessing().std)[0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    places = {"model_path": tmp_path / "library" / "net", "cache_dir": tmp_path / "cache"}
    with ServerProcess(**places) as server, server.client() as client:  # type: ignore[arg-type]
        metadata = client.get("/v2/models/net").json()
        (output,) = metadata["outputs"]
        assert (output["name"], output["shape"]) == ("logits", [-1, CLASSES])
        for variant in VARIANTS:
            headers = {"X-Model-Variant": variant}
            files = [("file", (name, photo.read_bytes())) for name in ("a", "b", "c")]
            answer = client.post("/v1/classify?top_k=5", files=files, headers=headers).json()
            for image in answer["results"]:
                found = {prediction["label"]: prediction["probability"] for prediction in image["predictions"]}
                assert found == pytest.approx(dict(zip(LABELS, probabilities, strict=True)), abs=1e-5)
            tensor = {"name": metadata["inputs"][0]["name"], "datatype": "UINT8", "shape": [2, SIZE, SIZE, 3]}
            body = {"inputs": [{**tensor, "data": np.concatenate([pixels, pixels]).reshape(-1).tolist()}]}
            answer = client.post("/v2/models/net/infer", json=body, headers=headers).json()
            scores = np.array(answer["outputs"][0]["data"]).reshape(2, CLASSES)
            np.testing.assert_allclose(scores, [logits, logits], rtol=1e-4, atol=1e-4)
        assert server.stop() == 0


def test_what_our_engine_cannot_run_is_served_and_said(photo: Path, tmp_path: Path) -> None:
    result = add(vision_transformer(batch=1), tmp_path, "--size", str(SIZE), "--resize", str(SIZE))
    assert result.returncode == 0, result.stderr
    places = {"model_path": tmp_path / "library" / "net", "cache_dir": tmp_path / "cache"}
    with ServerProcess(**places) as server, server.client() as client:  # type: ignore[arg-type]
        described = {entry["name"]: entry for entry in client.get("/v1/models").json()["models"][0]["variants"]}
        assert (described["optimised"]["backend"], described["optimised"]["precision"]) == ("onnxruntime", "fp32")
        assert "because our engine cannot: Transpose node" in described["optimised"]["note"]
        labels = 'tessera_variant_info{backend="onnxruntime",isa="%s",precision="fp32",variant="optimised"} 1.0'
        assert labels % described["optimised"]["isa"] in client.get("/metrics").text
        files = [("file", (name, photo.read_bytes())) for name in ("a", "b", "c")]
        answers = [
            client.post("/v1/classify?top_k=5", files=files, headers={"X-Model-Variant": variant}).json()["results"]
            for variant in VARIANTS
        ]
        assert [image["predictions"] for image in answers[0]] == [image["predictions"] for image in answers[1]]
        assert server.stop() == 0
    assert any("because our engine cannot: Transpose node" in line for line in server.log)


def test_what_cannot_be_served_is_refused_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    huge = {"w2": np.full((CLASSES, CHANNELS), 3e38, np.float32)}
    result = add(classifier(constants=huge), tmp_path)
    assert result.returncode == 1
    assert "baseline variant cannot be served: Its scores are no finite numbers" in result.stderr
    assert "Traceback" not in result.stderr
    assert not any(word in result.stderr for word in ("backend=", ".partial", ".trial"))
    assert list((tmp_path / "library").iterdir()) == []
