from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs

from tessera.app.api.context import PROBES

ERROR = "#/components/schemas/ErrorBody"


def test_the_api_describes_itself(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    outside = {path for path in document["paths"] if not path.startswith("/v2")}
    admin = {f"/v1/admin/variants/{{variant}}/{verb}" for verb in ("load", "reload", "unload")}
    guard = {"/v1/experiments", "/v1/experiments/guard/reset"}
    assert outside == {"/v1/classify", *admin, *guard, "/v1/models", "/v1/profile", "/healthz", "/readyz", "/metrics"}
    classify = document["paths"]["/v1/classify"]["post"]
    # Any type is taken; generators know these two.
    assert {"application/octet-stream", "multipart/form-data"} == set(classify["requestBody"]["content"])
    assert {parameter["name"] for parameter in classify["parameters"]} == {
        "top_k",
        "explain",
        "size",
        "X-Model-Variant",
        "X-Experiment-Key",
        "X-Request-Timeout-Ms",
        "X-Priority",
        "X-Request-ID",
    }
    assert {"400", "408", "413", "415", "422", "500", "503"} <= set(classify["responses"])
    schemas = document["components"]["schemas"]
    assert set(schemas["ErrorBody"]["properties"]) == {"error", "code", "request_id"}
    # Generators take the title as a name; older versions of FastAPI tell what is sent and what comes back apart.
    assert all(re.sub("-(In|Out)put$", "", name) == schema["title"] for name, schema in schemas.items())


def test_no_answer_is_a_5xx_but_a_fault_and_what_may_pass(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    statuses = {status for methods in paths.values() for method in methods.values() for status in method["responses"]}
    assert {status for status in statuses if status.startswith("5")} == {"500", "503"}


def test_a_real_answer_has_the_described_shape(client: httpx.Client) -> None:
    from tessera.app.api.bodies import ClassifyBody
    from tests import imagefiles

    for query in ("", "?explain=1"):
        answer = client.post(f"/v1/classify{query}", files=[("file", ("a.png", imagefiles.png()))] * 2).json()
        assert ClassifyBody.model_validate(answer).model_dump(exclude_unset=True) == answer
        assert all(("heat_map" in label) == bool(query) for one in answer["results"] for label in one["predictions"])


def resolved(schema: Any, document: dict[str, Any]) -> dict[str, Any]:
    """A schema that is right of its own, and takes no key that it does not name."""
    text = json.dumps({**schema, "$defs": document["components"]["schemas"]})
    strict: dict[str, Any] = json.loads(text.replace("#/components/schemas/", "#/$defs/"))
    for part in (strict, *strict["$defs"].values()):
        if "properties" in part:
            part["additionalProperties"] = False
    return strict


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_answer_in_json_is_typed_and_as_described(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    asked = 0
    for path, method, operation in operations(document):
        schema = operation["responses"]["200"].get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            continue
        assert "$ref" in schema or "$ref" in schema.get("items", {}), f"{method} {path} is not typed"
        url = path.replace("{model}", "resnet50-imagenette").replace("{version}", "1")
        if method == "get" or path == "/v2/repository/index":
            answer = client.request(method, url)
            if path == "/v1/profile" and answer.status_code == 404:
                continue  # it is taken when nobody asks for anything; tests/integration/test_profile.py waits for that
            assert answer.status_code == 200, path
            jsonschema_rs.validate(resolved(schema, document), answer.json())
            asked += 1
    assert asked > 10
    pixels = {"name": "input", "datatype": "UINT8", "shape": [1, 224, 224, 3], "data": [0] * 224 * 224 * 3}
    for outputs in ([{"name": "output"}], [{"name": "output", "parameters": {"classification": 3}}]):
        answer = client.post("/v2/models/resnet50-imagenette/infer", json={"inputs": [pixels], "outputs": outputs})
        jsonschema_rs.validate(resolved({"$ref": "#/components/schemas/InferBody"}, document), answer.json())


def test_every_error_has_the_one_shape_and_too_many_requests_is_one_of_them(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            if not status.startswith("2"):
                assert answer["content"]["application/json"]["schema"] == {"$ref": ERROR}, f"{method} {path} {status}"
        assert "500" in operation["responses"]
        assert ("429" in operation["responses"]) == (path not in PROBES), path
    names = [entry for _, _, operation in operations(document) for entry in operation.get("parameters", [])]
    variants = [entry["schema"]["enum"] for entry in names if entry["name"] == "X-Model-Variant"]
    assert variants == [["baseline", "optimised"]] * 3


def test_head_is_answered_wherever_get_is(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    paths = [path for path, method, _ in operations(document) if method == "get"]
    for path in [*paths, "/", "/page/page.js", "/docs", "/openapi.json", "/v1/live"]:
        url = path.replace("{model}", "resnet50-imagenette").replace("{version}", "1")
        answer = client.head(url)
        expected = 200 if path != "/v1/profile" else client.get(url).status_code  # 404 until it has been taken
        assert (answer.status_code, answer.content) == (expected, b""), path


def test_the_docs_page_is_whole_by_itself(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert re.findall(r"https?:|//[a-z]|<script|@import|url\(", answer.text) == []
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in answer.text


def test_the_open_inference_protocol_is_described(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    model = ["", "/ready", "/config", "/stats", "/infer"]
    assert {path for path in paths if path.startswith("/v2")} == {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/stats",
        "/v2/repository/index",
        "/v2/repository/models/{model}/load",
        "/v2/repository/models/{model}/unload",
        *(f"/v2/models/{{model}}{suffix}" for suffix in model),
        *(f"/v2/models/{{model}}/versions/{{version}}{suffix}" for suffix in model),
    }
    infer = paths["/v2/models/{model}/infer"]["post"]
    assert {"200", "400", "404", "503"} <= set(infer["responses"])
    assert "Inference-Header-Content-Length" in {parameter["name"] for parameter in infer["parameters"]}


def test_every_answer_in_json_has_a_whole_example_that_is_like_real_ones(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            content = answer.get("content", {}).get("application/json")
            if content is None:
                continue
            assert "example" in content, f"{method} {path} {status}"
            jsonschema_rs.validate(resolved(content["schema"], document), content["example"])
            url = path.replace("{model}", "resnet50-imagenette").replace("{version}", "1")
            if status == "200" and method == "get" and path != "/v1/profile":
                real = client.get(url).json()
                assert alike(content["example"], real), path


def alike(one: Any, other: Any) -> bool:
    """Whether two documents have the same keys all the way down; of lists with entries, the first ones."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return not one or not other or alike(one[0], other[0])
    return True


def test_an_example_of_an_error_has_the_status_that_it_stands_under(client: httpx.Client) -> None:
    from tessera.app import errors

    statuses = {
        (found.code, str(found.status))
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.RequestError)
    }
    document = client.get("/openapi.json").json()
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            if not status.startswith("2"):
                code = answer["content"]["application/json"]["example"]["code"]
                assert (code, status) in statuses, f"{method} {path}"
