"""A model decides how large its images are: in decoding, in shared memory between processes, in both protocols."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from tessera import engine
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.protocol.classify import softmax
from tessera.models.preprocessing.image_size import Size, parse_size, sides
from tessera.models.registry import open_model
from tests import imagefiles
from tests.servers import CACHE, ServerProcess, tessera
from tests.small_model import small_folder
from tests.unit.models.classifiers import SIZE, classifier

FILES = [imagefiles.jpeg(), imagefiles.png(300, 400), imagefiles.png(90, 70)]
INFER = "/v2/models/small/infer"


def infer(client: httpx.Client, tensor: np.ndarray, datatype: str) -> httpx.Response:
    shown = {"name": "input", "datatype": datatype, "shape": tensor.shape, "data": tensor.ravel().tolist()}
    return client.post(INFER, json={"inputs": [shown]}, headers={"X-Model-Variant": "baseline"})


# Odd, so that rows end at odd addresses; by the folder, and by the setting on top of it.
@pytest.mark.effect_of("size")
@pytest.mark.parametrize(
    ("frontends", "size", "flags"), [(0, 97, ()), (1, (97, 131), ()), (0, 64, ("--size", "131x97"))]
)
def test_every_way_takes_images_of_the_models_size(
    tmp_path: Path, frontends: int, size: Size, flags: tuple[str, ...]
) -> None:
    folder = small_folder(tmp_path / "small", size=size, resize=110)
    size = parse_size(flags[1]) if flags else size
    height, width = sides(size)
    model = open_model(folder, cache=CACHE, sizes=[size])
    pixels = np.empty((len(FILES), height, width, 3), np.uint8)
    for data, row in zip(FILES, pixels, strict=True):
        ImageDecoder(model.preprocessing, max_pixels=10**6).decode(data, row)
    mean, std = np.float32(model.preprocessing.mean), np.float32(model.preprocessing.std)
    normalised = np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2), np.float32)
    with engine.load(model.variants["baseline"].path, backend="onnxruntime") as session:
        logits = session.run(pixels)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)

    with ServerProcess(*flags, model_path=folder, frontends=frontends, threads=1) as server, server.client() as client:
        assert client.get("/v2/models/small").json()["inputs"][0]["shape"] == [-1, 3, height, width]
        uploads = [("file", (f"{number}", data)) for number, data in enumerate(FILES)]
        sent = {"X-Model-Variant": "baseline"}
        results = client.post("/v1/classify", params={"top_k": 5}, files=uploads, headers=sent).json()["results"]
        for result, expected in zip(results, shares, strict=True):
            for prediction in result["predictions"]:
                assert prediction["probability"] == pytest.approx(expected[prediction["index"]], abs=1e-4)
        for tensor, datatype in ((pixels, "UINT8"), (normalised, "FP32")):
            (output,) = infer(client, tensor, datatype).json()["outputs"]
            assert np.allclose(np.reshape(output["data"], output["shape"]), logits, atol=1e-3)
        (served,) = client.get("/v1/models").json()["models"]
        assert served["input"]["size"] == (size if height == width else [height, width])
        explained = client.post("/v1/classify", params={"explain": 1}, content=FILES[0], headers=sent).json()
        seen = explained["results"][0]["predictions"][0]["heat_map"]
        assert (seen["height"], seen["width"]) == (-(-height // 32), -(-width // 32))
        answer = infer(client, np.zeros((1, 3, 224, 224)), "FP32")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inference_request")
        assert f"[N, 3, {height}, {width}]" in answer.json()["error"]
        assert server.stop() == 0


@pytest.mark.effect_of("decode_scale")
def test_large_photos_are_decoded_whole_where_that_is_asked_for(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(imagefiles.jpeg(2200, 1650))
    model = open_model(cache=CACHE)
    told, expected = [], []
    with engine.load(model.variants["optimised"].path, backend="cpu") as session:
        for decode_scale in (True, False):
            done = tessera("classify", "--json", "--decode-scale", str(decode_scale), str(photo))
            told.append(json.loads(done.stdout)["results"][0]["predictions"][0])
            pixels = np.empty((1, 224, 224, 3), np.uint8)
            decoder = ImageDecoder(model.preprocessing, max_pixels=10**7, decode_scale=decode_scale)
            decoder.decode(photo.read_bytes(), pixels[0])
            expected.append(float(softmax(session.run(pixels)[0]).max()))
    assert [best["probability"] for best in told] == pytest.approx(expected, abs=2e-6)
    assert told[0] != told[1]


def test_a_size_that_the_file_does_not_take_is_refused_with_the_one_that_it_takes(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(classifier().SerializeToString())
    done = tessera("serve", str(tmp_path / "net.onnx"), "--size", "224x320", "--port", "0")
    assert done.returncode == 1
    assert f"It takes images of {SIZE} x {SIZE} pixels, not 224 x 320: its file fixes that." in done.stderr
    assert "Traceback" not in done.stderr
