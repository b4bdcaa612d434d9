"""What the Open Inference Protocol over HTTP refuses, and how it says so."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests import imagefiles
from tests.integration.oip.requests import (
    FILES,
    MODEL,
    PATH,
    binary_request,
    bytes_request,
    files,
    infer_json,
    tensor,
)

ZEROS = np.zeros((1, 3, 224, 224), np.float32)
Body = bytes | tuple[bytes, dict[str, str]]

REFUSED: dict[str, tuple[int, str, Callable[[], Body]]] = {
    "empty": (400, "empty_body", lambda: b""),
    "not JSON": (400, "invalid_inference_request", lambda: b"hello"),
    "a bare image": (400, "invalid_inference_request", lambda: FILES[0]),
    "no inputs": (400, "invalid_inference_request", lambda: b'{"inputs": []}'),
    "another input": (400, "invalid_inference_request", lambda: infer_json(name="data", data=[0] * 150528)),
    "another datatype": (400, "invalid_inference_request", lambda: infer_json(datatype="INT8", data=[0] * 150528)),
    "another shape": (400, "invalid_inference_request", lambda: infer_json(shape=[1, 3, 224, 224], data=[0] * 150528)),
    "no images": (400, "invalid_inference_request", lambda: infer_json(shape=[0, 224, 224, 3])),
    "too few values": (400, "invalid_inference_request", lambda: infer_json(data=[0])),
    "not finite": (400, "invalid_inference_request", lambda: binary_request(ZEROS + np.float32(np.nan), "FP32")),
    "infinite": (400, "invalid_inference_request", lambda: binary_request(ZEROS - np.float32(np.inf), "FP32")),
    "huge values": (400, "invalid_inference_request", lambda: binary_request(ZEROS + np.float32(1e30), "FP32")),
    "two inputs": (
        400,
        "invalid_inference_request",
        lambda: json.dumps({"inputs": json.loads(infer_json(data=[0] * 150528))["inputs"] * 2}).encode(),
    ),
    "another output": (
        400,
        "invalid_inference_request",
        lambda: json.dumps({**json.loads(infer_json(data=[0] * 150528)), "outputs": [{"name": "x"}]}).encode(),
    ),
    "header length too long": (
        400,
        "invalid_inference_request",
        lambda: (b"{}", {"Inference-Header-Content-Length": "3"}),
    ),
    "header length negative": (
        400,
        "invalid_inference_request",
        lambda: (b"{}", {"Inference-Header-Content-Length": "-1"}),
    ),
    "header length text": (400, "invalid_inference_request", lambda: (b"{}", {"Inference-Header-Content-Length": "x"})),
    "raw and not an image": (400, "unsupported_image", lambda: (b"hello", {"Inference-Header-Content-Length": "0"})),
    "a damaged image": (400, "corrupt_image", lambda: bytes_request(FILES[0][:600])),
    "not an image": (400, "unsupported_image", lambda: bytes_request(FILES[0], b"hello")),
    "an empty image": (400, "empty_body", lambda: bytes_request(b"")),
    "a bomb": (400, "image_too_large", lambda: bytes_request(imagefiles.png_declaring(60_000, 60_000))),
    "too many images": (400, "too_many_images", lambda: bytes_request(*[b"x"] * 65)),
    "a body too large": (400, "body_too_large", lambda: b" " * (16 * 1024 * 1024 + 1)),
    "unpacks to too much": (
        400,
        "body_too_large",
        lambda: (gzip.compress(bytes(17 * 1024 * 1024), 1), {"Content-Encoding": "gzip"}),
    ),
    "not gzip": (400, "invalid_inference_request", lambda: (b"hello", {"Content-Encoding": "gzip"})),
    "cut short": (
        400,
        "invalid_inference_request",
        lambda: (zlib.compress(b"{}")[:-2], {"Content-Encoding": "deflate"}),
    ),
    "unknown encoding": (400, "unsupported_encoding", lambda: (b"{}", {"Content-Encoding": "br"})),
    "unknown variant": (400, "unknown_variant", lambda: (b"{}", {"X-Model-Variant": "fast"})),
    "shared memory": (
        400,
        "unsupported",
        lambda: infer_json(parameters={"shared_memory_region": "r", "shared_memory_byte_size": 1}),
    ),
    "a bad priority": (400, "invalid_parameter", lambda: (b"{}", {"X-Priority": "urgent"})),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_the_shape_that_clients_read(case: str, http: httpx.Client) -> None:
    status, code, make = REFUSED[case]
    made = make()
    body, headers = made if isinstance(made, tuple) else (made, {})
    answer = http.post(PATH + "/infer", content=body, headers=headers)
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), document
    assert set(document) == {"error", "code", "request_id"}
    assert document["error"].endswith(".")
    assert http.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/", 404, "not_found"),
        ("GET", "/v2/nothing", 404, "not_found"),
        ("GET", "/v2/models/another", 404, "unknown_model"),
        ("GET", "/v2/models/another%2Fone", 404, "not_found"),
        ("GET", PATH + "/versions/3", 404, "unknown_model"),
        ("GET", PATH + "/versions/x/config", 404, "unknown_model"),
        ("GET", f"/v2/models/{MODEL}-baseline/versions/2/stats", 404, "unknown_model"),
        ("POST", "/v2/models/another/infer", 404, "unknown_model"),
        ("GET", PATH + "/infer", 405, "method_not_allowed"),
        ("POST", "/v2/models/stats", 405, "method_not_allowed"),
        ("GET", "/v2/systemsharedmemory/status", 400, "unsupported"),
        ("POST", "/v2/cudasharedmemory/region/r/register", 400, "unsupported"),
        ("GET", "/v2/trace/setting", 400, "unsupported"),
        ("POST", "/v2/logging", 400, "unsupported"),
    ],
)
def test_paths_that_are_not_there(method: str, path: str, status: int, code: str, http: httpx.Client) -> None:
    answer = http.request(method, path)
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code)
    assert set(document) == {"error", "code", "request_id"}


def test_a_model_name_and_a_header_that_contradict_each_other(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="baseline") as caught:
        client.infer(f"{MODEL}-baseline", [tensor(files())], headers={"X-Model-Variant": "optimised"})
    assert caught.value.status() == "400"


def test_load_refuses_files_in_the_request(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException):
        client.load_model(MODEL, config="{}", files={"file:1/model.onnx": b"x"})
