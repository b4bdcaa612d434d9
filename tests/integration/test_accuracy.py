"""The optimised variant against ONNX Runtime on the same QDQ file, over Imagenette's validation photos.

Every tenth photo in `make test`, because ONNX Runtime needs minutes for all 3,925; `make accuracy` takes all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from tessera import engine
from tessera.app.imaging.decoder import ImageDecoder
from tessera.engine.normalisation import Normalisation
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.registry import Model, open_model
from tests.imagefiles import encode
from tests.servers import CACHE
from tests.shared_data import SHARED_DATA, requires_shared_data

BATCH = 25
STEP = 1 if os.environ.get("TESSERA_ALL_PHOTOS") else 10

pytestmark = requires_shared_data


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(cache=CACHE)


def labelled_photos(model: Model) -> list[tuple[Path, int]]:
    wnids = (model.folder / "wnids.txt").read_text().split()
    return [
        (photo, index)
        for index, wnid in enumerate(wnids)
        for photo in sorted((SHARED_DATA / "imagenette/val" / wnid).glob("*.JPEG"))
    ]


def batches(photos: list[tuple[Path, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    decoder = ImageDecoder(Preprocessing(), max_pixels=64 * 1024 * 1024)
    for start in range(0, len(photos), BATCH):
        chunk = photos[start : start + BATCH]
        pixels = np.empty((len(chunk), 224, 224, 3), np.uint8)
        for row, (photo, _) in enumerate(chunk):
            decoder.decode(photo.read_bytes(), pixels[row])
        yield pixels, np.array([label for _, label in chunk])


def final_quantum(path: Path, pixels: np.ndarray) -> float:
    """Real value of one quantum of the last layer's products, had its input eight bits.

    The file leaves logits in float32, and may leave the last layer in floating point, so the quantum that matters is
    that of the activations entering the last layer, carried through weights of mean magnitude: the largest of them
    over 255, times the mean over outputs of the norm of the weights.
    """
    model = onnx.load(path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    gemm = next(node for node in reversed(model.graph.node) if node.op_type in ("Gemm", "MatMul"))
    weight = producers.get(gemm.input[1])
    if weight is None:
        weights = constants[gemm.input[1]]
    else:
        weights = constants[weight.input[0]] * constants[weight.input[1]].reshape(-1, 1)
    model.graph.output.append(onnx.helper.make_tensor_value_info(gemm.input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = Normalisation(Preprocessing().mean, Preprocessing().std).apply(pixels)
    entering = session.run([gemm.input[0]], {session.get_inputs()[0].name: images})[0]
    return float(entering.max()) / 255 * float(np.linalg.norm(weights, axis=1).mean())


@pytest.mark.timeout(1200)
def test_our_engine_answers_like_onnxruntime_on_the_same_file(model: Model) -> None:
    photos = labelled_photos(model)[::STEP]
    assert len(photos) == -(-3925 // STEP)
    path = model.variants["optimised"].path
    same = ours_right = theirs_right = 0
    difference = 0.0
    with engine.load(path, backend="cpu") as ours, engine.load(path, backend="onnxruntime") as theirs:
        for pixels, labels in batches(photos):
            a, b = ours.run(pixels), theirs.run(pixels)
            same += int((a.argmax(1) == b.argmax(1)).sum())
            ours_right += int((a.argmax(1) == labels).sum())
            theirs_right += int((b.argmax(1) == labels).sum())
            difference += float(np.abs(a - b).sum()) / a.shape[1]
    count = len(photos)
    summary = {
        "agreement": same / count,
        "top1_ours": ours_right / count,
        "top1_onnxruntime": theirs_right / count,
        "mean_difference": difference / count,
        "quantum": final_quantum(path, pixels),
    }
    print(json.dumps(summary))
    assert summary["agreement"] >= 0.995
    assert summary["mean_difference"] <= summary["quantum"]


def test_fp32_answers_match_onnxruntime_on_the_imagenet_model() -> None:
    """Real 1000-class weights, real photos: within 1e-4 of the output's norm."""
    imagenet = open_model(SHARED_DATA / "resnet50-imagenet", cache=CACHE)
    path = imagenet.variants["baseline"].path
    photos = sorted((SHARED_DATA / "imagenet-sample").glob("*.JPEG"))[::50]
    pixels = next(batches([(photo, 0) for photo in photos]))[0]
    with (
        engine.load(path, backend="cpu", precision="fp32") as ours,
        engine.load(path, backend="onnxruntime") as theirs,
    ):
        a, b = ours.run(pixels), theirs.run(pixels)
    assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)
    assert (a.argmax(1) == b.argmax(1)).all()


def test_large_photos_are_answered_as_if_they_were_decoded_whole(tmp_path: Path) -> None:
    """Photos of twelve megapixels are decoded at a quarter; `benchmarks/decoding.py --accuracy` counts all photos."""
    imagenet = open_model(SHARED_DATA / "resnet50-imagenet", cache=tmp_path)
    files = sorted((SHARED_DATA / "imagenet-sample").glob("*.JPEG"))[::42]
    photos = [encode(Image.open(file).convert("RGB").resize((4000, 3000)), "JPEG", quality=88) for file in files]
    pixels = np.empty((2, len(photos), 224, 224, 3), np.uint8)
    for way, decode_scale in zip(pixels, (False, True), strict=True):
        decoder = ImageDecoder(imagenet.preprocessing, max_pixels=64 * 1024 * 1024, decode_scale=decode_scale)
        for photo, row in zip(photos, way, strict=True):
            decoder.decode(photo, row)
    with engine.load(imagenet.variants["baseline"].path, backend="cpu", precision="fp32") as session:
        whole, fraction = (session.run(way) for way in pixels)
    assert not np.array_equal(pixels[0], pixels[1])
    assert 10 * np.log10((whole**2).sum() / ((whole - fraction) ** 2).sum()) >= 30
    assert (whole.argmax(1) == fraction.argmax(1)).sum() >= len(photos) - 1
