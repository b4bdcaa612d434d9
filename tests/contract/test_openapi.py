from __future__ import annotations

import httpx


def test_the_api_describes_itself(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/classify",
        "/v1/experiments",
        "/v1/models",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    classify = document["paths"]["/v1/classify"]["post"]
    assert {"image/jpeg", "application/octet-stream", "multipart/form-data"} == set(classify["requestBody"]["content"])
    assert {parameter["name"] for parameter in classify["parameters"]} == {
        "top_k",
        "X-Model-Variant",
        "X-Experiment-Key",
        "X-Request-Timeout-Ms",
        "X-Priority",
        "X-Request-ID",
    }
    assert {"400", "408", "413", "415", "422", "500", "503", "504"} <= set(classify["responses"])
    assert set(document["components"]["schemas"]["ErrorBody"]["properties"]) == {"error", "code", "request_id"}
    assert "swagger" in client.get("/docs").text


def test_a_real_answer_has_the_described_shape(client: httpx.Client) -> None:
    from app.api.openapi import ClassifyBody
    from tests import imagefiles

    answer = client.post("/v1/classify", files=[("file", ("a.png", imagefiles.png()))] * 2).json()
    assert ClassifyBody.model_validate(answer).model_dump() == answer
