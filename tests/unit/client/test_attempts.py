"""When a request is sent again: what passes, not before Retry-After, and not past the deadline."""

from __future__ import annotations

import time

import httpx
import pytest

from tessera.client import ClientError, NoAnswerError, RefusedError
from tessera.client.attempts import Attempts, Size
from tessera.client.images import File

REQUEST = httpx.Request("POST", "http://127.0.0.1:8000/v1/classify")


def attempts(seconds: float = 60.0, top_k: int = 5, variant: str | None = None, size: Size | None = None) -> Attempts:
    return Attempts([File("photo.jpg", b"jpeg")], variant, top_k, size, time.monotonic() + seconds)


def told(status: int, code: str = "", **headers: str) -> httpx.Response:
    body = {"error": "A sentence.", "code": code, "request_id": "7"}
    return httpx.Response(status, headers=headers, json=body, request=REQUEST)


@pytest.mark.parametrize(
    ("status", "code"), [(503, "not_ready"), (503, "queue_full"), (503, "shutting_down"), (429, "rate_limited")]
)
def test_what_passes_is_tried_again_after_the_time_that_was_told(status: int, code: str) -> None:
    pause = attempts().answer(told(status, code, **{"Retry-After": "7"}))
    assert isinstance(pause, float)
    assert 7 <= pause <= 9


def test_a_proxy_that_has_lost_the_service_is_asked_again_soon_then_more_slowly() -> None:
    trying = attempts()
    pauses = []
    for _ in range(8):
        trying.request()
        pauses.append(trying.answer(httpx.Response(502, html="<h1>Bad gateway</h1>", request=REQUEST)))
    assert pauses[0] < 0.2
    assert pauses[0] < pauses[2] < pauses[4]  # type: ignore[operator]
    assert all(2 <= pause <= 2.5 for pause in pauses[5:])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *[(400, "corrupt_image"), (400, "unknown_variant"), (413, "body_too_large"), (500, "inference_failed")],
        (503, "engine_lost"),  # which another engine process would die of too
    ],
)
def test_what_does_not_pass_is_told_at_once(status: int, code: str) -> None:
    with pytest.raises(RefusedError, match=r"A sentence\.") as refused:
        attempts().answer(told(status, code, **{"Retry-After": "1"}))
    assert (refused.value.status, refused.value.code, refused.value.request_id) == (status, code, "7")


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="It works!", request=REQUEST),
        httpx.Response(200, json=["not", "ours"], request=REQUEST),
        httpx.Response(200, json={"results": [{}]}, request=REQUEST),
        httpx.Response(404, text="no such page", request=REQUEST),
    ],
)
def test_what_is_not_the_service_is_told(response: httpx.Response) -> None:
    with pytest.raises(RefusedError, match=r"http://127\.0\.0\.1:8000/v1/classify") as refused:
        attempts().answer(response)
    assert refused.value.code == ""


def test_a_pause_past_the_deadline_ends_it_and_the_last_reason_is_told() -> None:
    with pytest.raises(NoAnswerError, match=r"A sentence\."):
        attempts(seconds=5).answer(told(503, "not_ready", **{"Retry-After": "6"}))
    with pytest.raises(NoAnswerError, match=r"ConnectError refused"):
        attempts(seconds=0.01).failed(httpx.ConnectError("refused"))


def test_a_connection_that_fails_is_tried_again_and_a_wrong_address_is_not() -> None:
    assert attempts().failed(httpx.RemoteProtocolError("closed")) < 1
    with pytest.raises(ClientError, match="cannot be sent"):
        attempts().failed(httpx.UnsupportedProtocol("htp://"))


def test_the_service_is_told_the_time_that_is_left() -> None:
    sent = attempts(seconds=9, top_k=1, variant="baseline").request()
    assert 8000 < int(sent["headers"]["X-Request-Timeout-Ms"]) <= 9000
    assert sent["headers"]["X-Model-Variant"] == "baseline"
    assert sent["params"] == {"top_k": 1}
    assert attempts(size=160).request()["params"] == {"size": "160"}
    assert attempts(size=(131, 97)).request()["params"] == {"size": "131x97"}
    # A model of two classes has no five labels: what is not asked for is the service's own choice.
    plain = attempts().request()
    assert plain["params"] == {}
    assert "X-Model-Variant" not in plain["headers"]
