"""Inference by the Open Inference Protocol over HTTP, with the clients that people use, against a real server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.integration.oip.requests import (
    FILES,
    MODEL,
    PATH,
    VARIANTS,
    bytes_request,
    files,
    normalised,
    pixels,
    scores,
    tensor,
)


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


def test_a_timeout_parameter_ends_the_wait(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(MODEL, [tensor(files())], timeout=1)
    assert caught.value.status() == "503"
    assert scores(client, files(), "optimised").shape == (3, 10)


def test_priorities_are_taken(client: triton.InferenceServerClient) -> None:
    for priority in (1, 2, 7):
        assert client.infer(MODEL, [tensor(files())], priority=priority).as_numpy("output").shape == (3, 10)
