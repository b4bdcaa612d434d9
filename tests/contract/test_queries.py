"""No path ignores a query parameter that it does not know."""

from __future__ import annotations

import re

import httpx
import pytest

from tests import imagefiles

JPEG = imagefiles.jpeg()
MODEL = "/v2/models/resnet50-imagenette"


def test_every_operation_refuses_what_it_does_not_know(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert len(paths) > 20
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert "422" in operation["responses"], path
            url = re.sub(r"{\w+}", "x", path)
            answer = client.request(method, f"{url}?nonsense=1")
            assert (answer.status_code, answer.json()["code"]) == (422, "unknown_parameter"), (method, path)
            assert "'nonsense'" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/v2/logging"])
def test_what_is_outside_the_document_refuses_it_too(path: str, client: httpx.Client) -> None:
    answer = client.get(path, params={"nonsense": "1"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_parameter")


@pytest.mark.parametrize(
    ("path", "query", "meant"),
    [
        ("/v1/classify", "variant=baseline", "'variant'; it is the header X-Model-Variant."),
        ("/v1/classify", "model_variant=baseline", "the header X-Model-Variant."),
        ("/v1/classify", "X-Model-Variant=baseline", "the header X-Model-Variant."),
        ("/v1/classify", "topk=2", "'topk'; did you mean top_k."),
        ("/v1/classify", "top-k=2", "did you mean top_k."),
        ("/v1/classify", "TOP_K=2", "did you mean top_k."),
        ("/v1/classify", "top_k=2&topk=2", "did you mean top_k."),
        ("/v1/classify", "top_k=2&timeout=5", "the header X-Request-Timeout-Ms."),
        ("/v1/classify", "priority=high", "the header X-Priority."),
        ("/v1/classify", "key=me", "the header X-Experiment-Key."),
        ("/v1/classify", "request_id=me", "the header X-Request-ID."),
        ("/v1/classify", "format=xml", "it takes: top_k, explain, size."),
        ("/v1/classify", "=1", "it takes: top_k, explain, size."),
        ("/v1/classify", "nonsense", "it takes: top_k, explain, size."),
        (MODEL + "/infer", "variant=baseline", "the header X-Model-Variant."),
        (MODEL + "/infer", "top_k=2", "it takes none."),
        (MODEL + "/infer", "version=1", "it takes none."),
        ("/v2/repository/index", "ready=true", "it takes none."),
    ],
)
def test_what_was_probably_meant_is_named(path: str, query: str, meant: str, client: httpx.Client) -> None:
    answer = client.post(f"{path}?{query}", content=JPEG)
    assert answer.status_code == 422
    assert answer.json()["error"].endswith(meant)


def test_a_query_without_parameters_is_none(client: httpx.Client) -> None:
    assert client.get("/healthz?").status_code == 200
    assert client.get("/healthz?&&").status_code == 200
    assert client.post("/v1/classify?top_k=2&", content=JPEG).status_code == 200


def test_a_path_that_is_not_there_is_said_first(client: httpx.Client) -> None:
    assert client.get("/nothing?nonsense=1").status_code == 404
    assert client.get("/v1/classify?nonsense=1").status_code == 405


def test_a_query_without_end_is_refused(client: httpx.Client) -> None:
    for query in ("a=" + "x" * 50_000, "x" * 50_000, "&" * 50_000):
        answer = client.get("/healthz?" + query)
        assert answer.status_code == 422
        assert len(answer.json()["error"]) < 200
