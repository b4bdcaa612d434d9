"""The Open Inference Protocol over HTTP, with the clients that people use, against a real server."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from app.imaging.decoder import ImageDecoder
from models.preprocessing import Preprocessing
from tests import imagefiles
from tests.servers import ServerProcess

MODEL = "resnet50-imagenette"
PATH = f"/v2/models/{MODEL}"
VARIANTS = ("baseline", "optimised")
FILES = [imagefiles.jpeg(), imagefiles.png(300, 400), imagefiles.KINDS["webp"]()]
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def pixels() -> np.ndarray:
    """The files as uint8 [N, 224, 224, 3], decoded as the service does."""
    rows = np.empty((len(FILES), 224, 224, 3), np.uint8)
    for data, row in zip(FILES, rows, strict=True):
        ImageDecoder(Preprocessing(), max_pixels=10**6).decode(data, row)
    return rows


def normalised() -> np.ndarray:
    return np.ascontiguousarray(((pixels() / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2), np.float32)


def tensor(values: np.ndarray, *, binary: bool = True, module: Any = triton) -> Any:
    datatype = {"float32": "FP32", "uint8": "UINT8", "object": "BYTES"}[values.dtype.name]
    made = module.InferInput("input", values.shape, datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def files() -> np.ndarray:
    return np.array(FILES, dtype=object)


@pytest.fixture(scope="module")
def address(server: ServerProcess) -> str:
    return server.url.removeprefix("http://")


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as connected:
        yield connected


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as connected:
        yield connected


def scores(client: triton.InferenceServerClient, values: np.ndarray, variant: str, **options: Any) -> np.ndarray:
    result = client.infer(MODEL, [tensor(values)], headers={"X-Model-Variant": variant}, **options).as_numpy("output")
    assert result.dtype == np.float32
    assert result.shape == (len(values), 10)
    return result


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_input_gives_what_classify_gives(
    variant: str, client: triton.InferenceServerClient, http: httpx.Client
) -> None:
    forms = [("file", (str(index), data)) for index, data in enumerate(FILES)]
    answer = http.post("/v1/classify", params={"top_k": 10}, files=forms, headers={"X-Model-Variant": variant})
    expected = np.zeros((len(FILES), 10))
    for row, result in zip(expected, answer.json()["results"], strict=True):
        for prediction in result["predictions"]:
            row[prediction["index"]] = prediction["probability"]
    logits = scores(client, files(), variant)
    np.testing.assert_allclose(softmax(logits), expected, atol=1e-4)
    np.testing.assert_allclose(scores(client, pixels(), variant), logits, rtol=1e-4, atol=1e-4)
    # Rounding of the normalisation may move an activation across a step of the int8 grid.
    tolerance = 0.2 if variant == "optimised" else 2e-3
    np.testing.assert_allclose(scores(client, normalised(), variant), logits, atol=tolerance)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def test_the_variants_differ_so_that_the_comparison_means_something(client: triton.InferenceServerClient) -> None:
    baseline, optimised = (scores(client, pixels(), variant) for variant in VARIANTS)
    assert np.abs(baseline - optimised).max() > 1e-3


@pytest.mark.parametrize(
    ("model", "version", "header", "variant", "answering"),
    [
        (MODEL, "", None, "optimised", "2"),
        (MODEL, "", "baseline", "baseline", "1"),
        (MODEL, "1", None, "baseline", "1"),
        (MODEL, "2", "optimised", "optimised", "2"),
        (f"{MODEL}-baseline", "", None, "baseline", "1"),
        (f"{MODEL}-optimised", "2", None, "optimised", "2"),
    ],
)
def test_the_variant_is_chosen_by_name_version_or_header(
    model: str, version: str, header: str | None, variant: str, answering: str, http: httpx.Client
) -> None:
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
    body, headers = bytes_request(*FILES)
    answer = http.post(path, content=body, headers={**headers, **({"X-Model-Variant": header} if header else {})})
    document = answer.json()
    assert answer.headers["X-Model-Variant"] == variant
    assert (document["model_name"], document["model_version"]) == (model, answering)
    by_header = http.post(PATH + "/infer", content=body, headers={**headers, "X-Model-Variant": variant}).json()
    np.testing.assert_allclose(document["outputs"][0]["data"], by_header["outputs"][0]["data"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("binary_in", "binary_out", "request_encoding", "response_encoding"),
    [
        (True, True, None, None),
        (True, False, "gzip", "deflate"),
        (False, True, "deflate", "gzip"),
        (False, False, None, "gzip"),
    ],
)
def test_bodies_of_every_form_carry_the_same_tensors(
    binary_in: bool,
    binary_out: bool,
    request_encoding: str | None,
    response_encoding: str | None,
    client: triton.InferenceServerClient,
) -> None:
    one = pixels()[1:2]
    result = client.infer(
        MODEL,
        [tensor(one, binary=binary_in)],
        request_id="mine",
        outputs=[triton.InferRequestedOutput("output", binary_data=binary_out)],
        request_compression_algorithm=request_encoding,
        response_compression_algorithm=response_encoding,
    )
    assert result.get_response()["id"] == "mine"
    assert ("data" in result.get_output("output")) != binary_out
    np.testing.assert_allclose(result.as_numpy("output"), scores(client, one, "optimised"), rtol=1e-4, atol=1e-4)


def test_a_large_json_answer_is_compressed_when_the_client_asks(http: httpx.Client) -> None:
    body, headers = bytes_request(*[FILES[0]] * 16)  # far past the size below which it is not worth while
    for accepted, encoding in (("gzip", "gzip"), ("deflate", "deflate"), ("identity", None)):
        answer = http.post(PATH + "/infer", content=body, headers={**headers, "Accept-Encoding": accepted})
        assert answer.headers.get("Content-Encoding") == encoding
        assert len(answer.json()["outputs"][0]["data"]) == 160


@pytest.mark.parametrize("binary", [True, False])
def test_classification_gives_the_best_labels(binary: bool, client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("output", binary_data=binary, class_count=3)]
    result = client.infer(MODEL, [tensor(files())], outputs=outputs)
    logits = scores(client, files(), "optimised")
    assert result.get_output("output")["datatype"] == "BYTES"
    best = result.as_numpy("output")
    assert best.shape == (len(FILES), 3)
    for row, texts in zip(logits, best, strict=True):
        parts = [(text.decode() if isinstance(text, bytes) else text).split(":") for text in texts]
        assert [int(index) for _, index, _ in parts] == list(np.argsort(-row)[:3])
        np.testing.assert_allclose([float(value) for value, _, _ in parts], np.sort(row)[::-1][:3], atol=1e-4)
        assert all(label for _, _, label in parts)


def test_more_classes_than_there_are_give_all(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("output", class_count=1000)]
    assert client.infer(MODEL, [tensor(files())], outputs=outputs).as_numpy("output").shape == (len(FILES), 10)


def test_a_raw_body_is_an_image_file_or_a_tensor(http: httpx.Client, client: triton.InferenceServerClient) -> None:
    expected = scores(client, files(), "baseline")[:1]
    headers = {"Inference-Header-Content-Length": "0", "X-Model-Variant": "baseline"}
    for body in (FILES[0], normalised()[:1].tobytes()):
        answer = http.post(PATH + "/infer", content=body, headers=headers)
        length = int(answer.headers["Inference-Header-Content-Length"])
        assert json.loads(answer.content[:length])["outputs"][0]["parameters"]["binary_data_size"] == 40
        np.testing.assert_allclose(np.frombuffer(answer.content[length:], "<f4")[None], expected, atol=2e-3)


def test_files_without_lengths_between_them_as_openvino_model_server_takes_them(
    http: httpx.Client, client: triton.InferenceServerClient
) -> None:
    sizes = ",".join(str(len(data)) for data in FILES)
    entry = {"name": "input", "shape": [len(FILES)], "datatype": "BYTES", "parameters": {"binary_data_size": sizes}}
    header = json.dumps({"inputs": [entry]}).encode()
    answer = http.post(
        PATH + "/infer",
        content=header + b"".join(FILES),
        headers={"Inference-Header-Content-Length": str(len(header))},
    ).json()
    output = answer["outputs"][0]
    assert output["shape"] == [len(FILES), 10]
    np.testing.assert_allclose(
        np.reshape(output["data"], output["shape"]), scores(client, files(), "optimised"), rtol=1e-4, atol=1e-4
    )


def test_the_client_learns_everything_about_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(f"{MODEL}-baseline", "1")
    assert not client.is_model_ready(MODEL, "3")
    assert not client.is_model_ready("another")
    assert client.get_server_metadata()["name"] == "tessera"
    metadata = client.get_model_metadata(MODEL)
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 224, 224]}]
    assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 10]}]
    assert client.get_model_metadata(MODEL, "1")["platform"] == "onnxruntime_onnx"
    index = client.get_model_repository_index()
    assert {(entry["name"], entry["version"]) for entry in index} == {
        (MODEL, "1"),
        (MODEL, "2"),
        (f"{MODEL}-baseline", "1"),
        (f"{MODEL}-optimised", "2"),
    }
    assert {entry["state"] for entry in index} == {"READY"}


def test_the_configuration_has_what_perf_analyzer_reads(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config(MODEL)
    metadata = client.get_model_metadata(MODEL)
    assert config["max_batch_size"] == 16
    assert [entry["name"] for entry in config["input"]] == [entry["name"] for entry in metadata["inputs"]]
    assert [entry["dims"] for entry in config["input"]] == [entry["shape"][1:] for entry in metadata["inputs"]]
    assert [entry["dims"] for entry in config["output"]] == [entry["shape"][1:] for entry in metadata["outputs"]]
    assert (config["input"][0]["optional"], config["input"][0]["is_shape_tensor"]) == (False, False)
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert "dynamic_batching" in config
    assert not {"sequence_batching", "ensemble_scheduling", "response_cache"} & set(config)


def test_statistics_count_requests_images_and_batches(client: triton.InferenceServerClient) -> None:
    def read() -> dict[str, Any]:
        (entry,) = client.get_inference_statistics(MODEL, "1")["model_stats"]
        return entry

    before = read()
    for _ in range(3):
        scores(client, files(), "baseline")
    with pytest.raises(InferenceServerException):
        client.infer(f"{MODEL}-baseline", [tensor(np.zeros((1, 3), np.float32))])
    after = read()
    assert (after["name"], after["version"]) == (MODEL, "1")
    assert after["inference_count"] - before["inference_count"] == 9
    assert 3 <= after["execution_count"] - before["execution_count"] <= 9
    assert after["last_inference"] > 1.5e12
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert after["inference_stats"][stage]["count"] - before["inference_stats"][stage]["count"] == 3
        assert after["inference_stats"][stage]["ns"] > before["inference_stats"][stage]["ns"]
    assert after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert sum(row["compute_infer"]["count"] for row in after["batch_stats"]) == after["execution_count"]
    everything = client.get_inference_statistics()["model_stats"]
    assert len(everything) == 4
    assert after in everything


def test_asynchronous_requests_of_the_synchronous_client(address: str) -> None:
    with triton.InferenceServerClient(address, concurrency=4) as client:
        pending = [client.async_infer(MODEL, [tensor(pixels()[index % 3 : index % 3 + 1])]) for index in range(8)]
        answers = [request.get_result().as_numpy("output") for request in pending]
        expected = scores(client, pixels(), "optimised")
    for index, answer in enumerate(answers):
        np.testing.assert_allclose(answer[0], expected[index % 3], rtol=1e-4, atol=1e-4)


def test_the_asyncio_client(address: str, client: triton.InferenceServerClient) -> None:
    async def talk() -> tuple[list[np.ndarray], dict[str, Any]]:
        # aiohttp asks for compressed answers and the client unpacks those of infer only.
        async with triton_aio.InferenceServerClient(address) as aio:
            assert await aio.is_server_live()
            assert await aio.is_server_ready()
            assert await aio.is_model_ready(MODEL)
            assert (await aio.get_model_metadata(MODEL))["name"] == MODEL
            assert (await aio.get_model_config(MODEL))["name"] == MODEL
            assert len(await aio.get_model_repository_index()) == 4
            outputs = [triton.InferRequestedOutput("output", binary_data=False)]
            results = await asyncio.gather(
                aio.infer(MODEL, [tensor(np.array(FILES[:1] * 8, dtype=object))], outputs=outputs),
                aio.infer(MODEL, [tensor(files())], headers={"X-Model-Variant": "baseline"}),
                aio.infer(MODEL, [tensor(pixels())], request_compression_algorithm="gzip"),
            )
            with pytest.raises(InferenceServerException, match="has no version '9'"):
                await aio.infer(MODEL, [tensor(files())], model_version="9")
            return [r.as_numpy("output") for r in results], await aio.get_inference_statistics()

    (repeated, baseline, compressed), statistics = asyncio.run(talk())
    optimised = scores(client, files(), "optimised")
    np.testing.assert_allclose(repeated, np.repeat(optimised[:1], 8, axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(baseline, scores(client, files(), "baseline"), atol=1e-3)
    np.testing.assert_allclose(compressed, optimised, rtol=1e-4, atol=1e-4)
    assert len(statistics["model_stats"]) == 4


def test_probes_have_empty_bodies_so_that_clients_keep_their_connections(http: httpx.Client) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", PATH + "/ready"):
        answer = http.get(path)
        assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")


def infer_json(**entry: Any) -> bytes:
    base = {"name": "input", "datatype": "UINT8", "shape": [1, 224, 224, 3], "data": []}
    return json.dumps({"inputs": [{**base, **entry}]}).encode()


def binary_request(values: np.ndarray, datatype: str, **parameters: Any) -> tuple[bytes, dict[str, str]]:
    entry = {"name": "input", "datatype": datatype, "shape": list(values.shape)}
    entry["parameters"] = {"binary_data_size": values.nbytes}
    header = json.dumps({"inputs": [entry], "parameters": parameters}).encode()
    return header + values.tobytes(), {"Inference-Header-Content-Length": str(len(header))}


def packed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def bytes_request(*data: bytes, shape: list[int] | None = None) -> tuple[bytes, dict[str, str]]:
    payload = b"".join(packed(part) for part in data)
    entry = {"name": "input", "datatype": "BYTES", "shape": shape or [len(data)]}
    entry["parameters"] = {"binary_data_size": len(payload)}
    header = json.dumps({"inputs": [entry]}).encode()
    return header + payload, {"Inference-Header-Content-Length": str(len(header))}


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


def test_a_timeout_parameter_ends_the_wait(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(MODEL, [tensor(files())], timeout=1)
    assert caught.value.status() == "503"
    assert scores(client, files(), "optimised").shape == (3, 10)


def test_priorities_are_taken(client: triton.InferenceServerClient) -> None:
    for priority in (1, 2, 7):
        assert client.infer(MODEL, [tensor(files())], priority=priority).as_numpy("output").shape == (3, 10)


def test_load_refuses_files_in_the_request(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException):
        client.load_model(MODEL, config="{}", files={"file:1/model.onnx": b"x"})
