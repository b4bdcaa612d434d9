"""Web pages from elsewhere: none may call the service, but those that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import imagefiles
from tests.servers import ServerProcess

OURS, FOREIGN = "https://photos.example.org", "https://evil.example.org"
ALLOWED = "Access-Control-Allow-Origin"


@pytest.fixture(scope="module")
def open_to_ours(small_model: Path) -> Iterator[httpx.Client]:
    origins = f"{OURS}, http://localhost:3000"
    with ServerProcess(model_path=small_model, cors_origins=origins) as server, server.client() as client:
        yield client


def preflight(client: httpx.Client, origin: str, path: str, **asked: str) -> httpx.Response:
    method = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.options(path, headers={**method, **asked})


@pytest.mark.effect_of("cors_origins")
def test_a_page_of_a_named_origin_may_classify_and_read_the_answer(open_to_ours: httpx.Client) -> None:
    wanted = {"Access-Control-Request-Headers": "content-type,x-model-variant,x-request-timeout-ms"}
    allowed = preflight(open_to_ours, OURS, "/v1/classify", **wanted)
    assert (allowed.status_code, allowed.headers[ALLOWED]) == (200, OURS)
    assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
    answer = open_to_ours.post("/v1/classify", content=imagefiles.jpeg(), headers={"Origin": OURS})
    assert (answer.status_code, answer.headers[ALLOWED], answer.headers["Vary"]) == (200, OURS, "Origin")
    assert "X-Model-Variant" in answer.headers["Access-Control-Expose-Headers"]
    refusal = open_to_ours.post("/v1/classify", content=b"", headers={"Origin": OURS})
    assert (refusal.status_code, refusal.headers[ALLOWED]) == (400, OURS), "a page can read why"
    assert open_to_ours.get("/v1/models", headers={"Origin": OURS}).headers[ALLOWED] == OURS
    assert open_to_ours.head("/v2", headers={"Origin": OURS}).headers[ALLOWED] == OURS


@pytest.mark.parametrize(
    ("origin", "asked", "why"),
    [
        (FOREIGN, {}, "Pages of 'https://evil.example.org' may not call this service"),
        (OURS, {"Access-Control-Request-Method": "PUT"}, "GET, HEAD, POST, not 'PUT'"),
        (
            OURS,
            {"Access-Control-Request-Headers": "content-type, Authorization"},
            "not all of 'content-type, Authorization'",
        ),
    ],
)
def test_other_pages_methods_and_admin_verbs_stay_out(
    open_to_ours: httpx.Client, origin: str, asked: dict[str, str], why: str
) -> None:
    refused = preflight(open_to_ours, origin, "/v1/admin/variants/baseline/unload", **asked)
    assert (refused.status_code, refused.headers["Content-Type"]) == (400, "application/json")
    error = refused.json()
    assert error.keys() == {"error", "code", "request_id"}
    assert error["code"] == "preflight_refused"
    assert why in error["error"]
    assert error["request_id"] == refused.headers["X-Request-ID"]
    assert refused.headers.get(ALLOWED) == (OURS if origin == OURS else None)
    assert "Origin" in refused.headers["Vary"].split(", ")
    assert "POST" in refused.headers["Access-Control-Allow-Methods"]


def test_other_pages_get_no_leave_to_read(open_to_ours: httpx.Client) -> None:
    assert ALLOWED not in open_to_ours.get("/v1/models", headers={"Origin": FOREIGN}).headers


def test_without_the_setting_no_page_from_elsewhere_may_call(client: httpx.Client) -> None:
    for answer in (
        client.get("/v1/models", headers={"Origin": OURS}),
        client.post("/v1/classify", content=imagefiles.jpeg(), headers={"Origin": OURS}),
        preflight(client, OURS, "/v1/classify"),
    ):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
