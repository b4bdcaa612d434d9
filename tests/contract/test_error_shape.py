"""Every error of every route: {"error", "code", "request_id"}, the right status, and never a stack trace."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable

import httpx
import pytest

from tessera.app.errors import RequestError
from tests import imagefiles
from tests.servers import ServerProcess

PATH = "/v1/classify"
Send = Callable[[httpx.Client], httpx.Response]


def post(content: object = b"", path: str = PATH, **options: object) -> Send:
    return lambda client: client.post(path, content=content, **options)


def form(*files: tuple[str, object], **options: object) -> Send:
    return lambda client: client.post(PATH, files=list(files), **options)


def raw_form(body: bytes, content_type: str = "multipart/form-data; boundary=b") -> Send:
    return post(body, headers={"Content-Type": content_type})


JPEG = imagefiles.jpeg()

CASES: dict[str, tuple[int, str, Send]] = {
    "no such path": (404, "not_found", lambda client: client.get("/nothing/here")),
    "trailing slash": (404, "not_found", post(JPEG, PATH + "/")),
    "wrong method": (405, "method_not_allowed", lambda client: client.get(PATH)),
    "wrong method on metrics": (405, "method_not_allowed", lambda client: client.delete("/metrics")),
    "unknown method": (405, "method_not_allowed", lambda client: client.request("BREW", PATH)),
    "empty body": (400, "empty_body", post(b"")),
    "empty chunked body": (400, "empty_body", post(iter([]))),
    "empty file": (400, "empty_body", form(("file", ("a.jpg", b"")))),
    "not an image": (415, "unsupported_image", post(b"hello")),
    "compressed": (415, "unsupported_encoding", post(JPEG, headers={"Content-Encoding": "gzip"})),
    "json": (415, "unsupported_image", lambda client: client.post(PATH, json={"image": "none"})),
    "not an image among images": (415, "unsupported_image", form(("file", JPEG), ("file", b"hello"))),
    "truncated image": (400, "corrupt_image", post(JPEG[: len(JPEG) // 2])),
    "too many pixels": (413, "image_too_large", post(imagefiles.bitmap_declaring(20_000, 20_000))),
    "a bomb": (413, "image_too_large", post(imagefiles.png_declaring(60_000, 60_000))),
    "body too large": (413, "body_too_large", post(b"\xff" * (16 * 1024 * 1024 + 1))),
    "body too large, chunked": (413, "body_too_large", post(b"\xff" * 65536 for _ in range(300))),
    "form too large": (413, "body_too_large", form(("file", b"\xff" * (17 * 1024 * 1024)))),
    "too many images": (413, "too_many_images", form(*[("file", b"x")] * 65)),
    "top_k 0": (422, "invalid_parameter", post(JPEG, PATH + "?top_k=0")),
    "top_k too large": (422, "invalid_parameter", post(JPEG, PATH + "?top_k=11")),
    "top_k text": (422, "invalid_parameter", post(JPEG, PATH + "?top_k=all")),
    "top_k empty": (422, "invalid_parameter", post(JPEG, PATH + "?top_k=")),
    "top_k twice": (422, "invalid_parameter", post(JPEG, PATH + "?top_k=1&top_k=2")),
    "explain text": (422, "invalid_parameter", post(JPEG, PATH + "?explain=yes")),
    "explain twice": (422, "invalid_parameter", post(JPEG, PATH + "?explain=1&explain=1")),
    "unknown variant": (400, "unknown_variant", post(JPEG, headers={"X-Model-Variant": "fast"})),
    "empty variant": (400, "unknown_variant", post(JPEG, headers={"X-Model-Variant": ""})),
    "huge variant": (400, "unknown_variant", post(JPEG, headers={"X-Model-Variant": "x" * 30_000})),
    "variant in Latin-1": (400, "unknown_variant", post(JPEG, headers={"X-Model-Variant": b"optimis\xe9"})),
    "two variants": (
        400,
        "unknown_variant",
        post(JPEG, headers=[("X-Model-Variant", "baseline"), ("X-Model-Variant", "optimised")]),
    ),
    "no priority": (422, "invalid_parameter", post(JPEG, headers={"X-Priority": "urgent"})),
    "two priorities": (
        422,
        "invalid_parameter",
        post(JPEG, headers=[("X-Priority", "high"), ("X-Priority", "high")]),
    ),
    "no timeout": (422, "invalid_parameter", post(JPEG, headers={"X-Request-Timeout-Ms": "0"})),
    "timeout in words": (422, "invalid_parameter", post(JPEG, headers={"X-Request-Timeout-Ms": "soon"})),
    "deadline out of reach": (503, "deadline_unreachable", post(JPEG, headers={"X-Request-Timeout-Ms": "1"})),
    "form without files": (400, "no_files", raw_form(b"--b--\r\n")),
    "form without boundary": (400, "malformed_multipart", raw_form(b"--b--\r\n", "multipart/form-data")),
    "form with another boundary": (400, "malformed_multipart", raw_form(b"--c\r\n\r\n--c--\r\n")),
    "form cut short": (
        400,
        "malformed_multipart",
        raw_form(b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + JPEG),
    ),
    "field of another name": (400, "malformed_multipart", form(("image", JPEG))),
    "empty multipart body": (400, "empty_body", raw_form(b"")),
}


@pytest.mark.parametrize("case", CASES)
def test_error(case: str, client: httpx.Client) -> None:
    status, code, send = CASES[case]
    answer = send(client)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert set(body) == {"error", "code", "request_id"}
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["error"].endswith(".")
    assert 10 < len(body["error"]) < 400
    for secret in ("Traceback", ".py", "0x", "site-packages"):
        assert secret not in body["error"]
    assert client.get("/healthz").status_code == 200, "the service goes on"


def test_an_unknown_variant_is_told_the_valid_ones(client: httpx.Client) -> None:
    error = post(JPEG, headers={"X-Model-Variant": "fast"})(client).json()["error"]
    assert "'fast'" in error
    assert "baseline, optimised" in error


@pytest.mark.parametrize(
    ("send", "what"),
    [
        (lambda client: client.post(PATH, json={"image": base64.b64encode(JPEG).decode()}), "JSON"),
        (lambda client: client.post(PATH, content=b" [1, 2]", headers={"Content-Type": "image/jpeg"}), "JSON"),
        (post(base64.b64encode(JPEG)), "base64 text"),
        (post(base64.b64encode(imagefiles.png())), "base64 text"),
        (post(b"data:image/jpeg;base64," + base64.b64encode(JPEG)), "base64 text"),
        (form(("file", ("a.jpg", base64.b64encode(JPEG)))), "base64 text"),
    ],
)
def test_an_image_as_text_is_told_how_to_send_it(client: httpx.Client, send: Send, what: str) -> None:
    answer = send(client)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_image")
    assert f"The data is {what}, and an image is sent here as it is" in answer.json()["error"]
    assert "curl --data-binary @photo.jpg" in answer.json()["error"]


def test_the_bad_file_of_several_is_named(client: httpx.Client) -> None:
    error = form(("file", ("good.jpg", JPEG)), ("file", ("bad.jpg", JPEG[:900])))(client).json()["error"]
    assert error.startswith("File 'bad.jpg': ")


def test_a_wrong_method_is_told_the_right_one(client: httpx.Client) -> None:
    assert client.get(PATH).headers["Allow"] == "POST"


def test_a_compressed_body_is_told_that_none_may_be(client: httpx.Client) -> None:
    assert post(JPEG, headers={"Content-Encoding": "br"})(client).headers["Accept-Encoding"] == "identity"


def test_nothing_is_a_5xx_but_a_fault_and_what_may_pass() -> None:
    assert {kind.status for kind in _leaves(RequestError) if kind.status >= 500} == {500, 503}


def _leaves(kind: type[RequestError]) -> list[type[RequestError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in _leaves(child))]


HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"X-Junk: " + b"x" * 2_000_000,
        HEAD + b"X-Junk\x00: 1\r\n\r\n",
        HEAD + b"Content-Length: many\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot-a-size\r\nabc",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_refused_in_the_same_shape(
    sent: bytes, server: ServerProcess, client: httpx.Client
) -> None:
    address = httpx.URL(server.url)
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["code"] == "invalid_http"
    assert json.loads(body)["request_id"].encode() in head
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/docs", "/openapi.json", "/nothing"]
)
def test_every_answer_has_a_request_id_and_keeps_a_given_one(path: str, client: httpx.Client) -> None:
    assert len(client.get(path).headers["X-Request-ID"]) == 32
    assert client.get(path, headers={"X-Request-ID": "mine-42"}).headers["X-Request-ID"] == "mine-42"
    assert client.get(path, headers={"X-Request-ID": "not\tplain"}).headers["X-Request-ID"] != "not\tplain"
