"""One service for images of several sizes: a request says which, and old clients are answered as before."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tessera import engine
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.protocol.classify import softmax
from tessera.engine.normalisation import Normalisation
from tessera.models.preprocessing.image_size import Size, size_flag
from tessera.models.registry import open_model
from tests import imagefiles
from tests.processes import children, replaced
from tests.servers import CACHE, ServerProcess
from tests.small_model import small_folder
from tests.waiting import until

SIZES: list[Size] = [97, (131, 97), 160]
PHOTO = imagefiles.jpeg(500, 375)
INFER = "/v2/models/small/infer"
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TOKEN = "a-token-that-nobody-guesses"


def folder_of_sizes(folder: Path) -> Path:
    small_folder(folder, size=97, resize=110)
    description = folder / "model.toml"
    description.write_text(description.read_text().replace("size = 97", f"sizes = {json.dumps(SIZES)}"))
    return folder


def pixels_at(folder: Path, size: Size) -> np.ndarray:
    decoder = ImageDecoder(open_model(folder, cache=CACHE, sizes=[size]).preprocessing, max_pixels=10**6)
    row = np.empty((1, *decoder.shape), np.uint8)
    decoder.decode(PHOTO, row[0])
    return row


def scores_at(folder: Path, pixels: np.ndarray, variant: str) -> np.ndarray:
    """What ONNX Runtime makes of an image with a graph that was built for its size alone."""
    height, width = pixels.shape[1:3]
    model = open_model(folder, cache=CACHE, sizes=[height if height == width else (height, width)])
    with engine.load(model.variants[variant].path, backend="onnxruntime") as session:
        return session.run(pixels)[0]


def best(client: httpx.Client, variant: str, **query: Any) -> dict[str, Any]:
    answer = client.post("/v1/classify", params=query, content=PHOTO, headers={"X-Model-Variant": variant})
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    prediction: dict[str, Any] = result["predictions"][0]
    return prediction


def infer(client: httpx.Client, tensor: np.ndarray, variant: str) -> np.ndarray:
    kind = "UINT8" if tensor.dtype == np.uint8 else "FP32"
    shown = {"name": "input", "datatype": kind, "shape": tensor.shape, "data": tensor.ravel().tolist()}
    answer = client.post(INFER, json={"inputs": [shown]}, headers={"X-Model-Variant": variant})
    assert answer.status_code == 200, answer.text
    return np.asarray(answer.json()["outputs"][0]["data"], np.float32)


def change(client: httpx.Client, variant: str, what: str) -> None:
    path = f"/v2/repository/models/small-{variant}/{what}"
    done = client.post(path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert done.status_code == 200, done.text


@pytest.mark.parametrize("frontends", [0, 1])
def test_each_size_is_answered_as_by_a_service_of_its_own(tmp_path: Path, frontends: int) -> None:
    folder = folder_of_sizes(tmp_path / "small")
    given = {size: pixels_at(folder, size) for size in SIZES}
    wanted = {
        (size, variant): scores_at(folder, given[size], variant)
        for size in SIZES
        for variant in ("baseline", "optimised")
    }
    settings = {"admin": True, "admin_token": TOKEN, "request_timeout_ms": 600_000, "shadow_share": 1.0}
    with (
        ServerProcess(model_path=folder, frontends=frontends, threads=1, **settings) as server,
        server.client() as client,
    ):

        def check(size: Size, variant: str) -> None:
            expected = wanted[size, variant]
            for query in ({"size": size_flag(size)}, {}) if size == SIZES[0] else ({"size": size_flag(size)},):
                said = best(client, variant, **query)
                assert said["index"] == expected.argmax()
                assert said["probability"] == pytest.approx(float(softmax(expected).max()), abs=1e-4)
            for tensor in (given[size], IMAGENET.apply(given[size])):
                assert np.allclose(infer(client, tensor, variant), expected, atol=1e-3)

        with ThreadPoolExecutor(8) as clients:  # together, so that batches of different sizes are in the queue at once
            list(clients.map(lambda lane: check(*lane), list(wanted) * 4))
        (model,) = client.get("/v1/models").json()["models"]
        shown = [size if isinstance(size, int) else [*size] for size in SIZES]
        assert model["input"] == {"size": 97, "resize": 110}
        assert [entry["size"] for entry in model["sizes"]] == shown
        assert client.get("/v2/models/small").json()["inputs"][0]["shape"] == [-1, 3, 97, 97]
        seen = best(client, "optimised", size="131x97", explain=1)["heat_map"]
        assert (seen["height"], seen["width"]) == (5, 4)

        for variant in ("baseline", "optimised"):
            change(client, variant, "unload")
            refused = client.post("/v1/classify?size=160", content=PHOTO, headers={"X-Model-Variant": variant})
            assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
            assert "@" not in refused.json()["error"]
            change(client, variant, "load")
            check(160, variant)
        if frontends:
            former = children(server)["engine"]
            os.kill(former, signal.SIGKILL)
            until(replaced(server, "engine", former))
            check((131, 97), "optimised")

        before = client.get("/v1/experiments").json()["shadow"]["agreement"]["images"]

        def compared() -> bool:
            best(client, "optimised", size=160)
            return client.get("/v1/experiments").json()["shadow"]["agreement"]["images"] > before

        until(compared)
        text = client.get("/metrics").text
        assert "@" not in text, "sizes have no labels"
        assert server.stop() == 0


@pytest.mark.parametrize("sent", ["96", "0", "", "97x", "x", "97x97x97", "97.0", "-97", "١٦٠", "9" * 900])
def test_an_unknown_size_is_refused_with_those_that_there_are(several: httpx.Client, sent: str) -> None:
    answer = several.post("/v1/classify", params={"size": sent}, content=PHOTO)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["error"] == "size must be one that this model is served at: 97, 131x97, 160."


def test_a_tensor_of_another_size_is_refused_with_those_that_there_are(several: httpx.Client) -> None:
    shown = {"name": "input", "datatype": "UINT8", "shape": [1, 96, 96, 3], "data": [0] * (96 * 96 * 3)}
    answer = several.post(INFER, json={"inputs": [shown]})
    assert answer.status_code == 400
    assert "[N, 97, 97, 3] or [N, 131, 97, 3] or [N, 160, 160, 3]" in answer.json()["error"]
    accepts = several.get("/v2/models/small/config").json()["parameters"]["input_accepts"]["string_value"]
    assert "UINT8 [N,97,97,3] or [N,131,97,3] or [N,160,160,3]" in accepts


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service of the same sizes by its setting."""
    folder = small_folder(tmp_path_factory.mktemp("several") / "small", size=97, resize=110)
    flag = ",".join(map(size_flag, SIZES))
    with ServerProcess("--size", flag, model_path=folder, threads=1) as server, server.client() as client:
        yield client
