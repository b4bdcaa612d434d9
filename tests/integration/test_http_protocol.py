"""What arrives on a connection, byte for byte: what is valid HTTP/1.1, what is refused, and in which order."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests import imagefiles
from tests.servers import ServerProcess
from tests.small_model import small_folder

JPEG = imagefiles.jpeg(64, 48)
HOST = b"Host: x\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
IMAGE = b"Content-Length: %d\r\n\r\n%b" % (len(JPEG), JPEG)


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on each event loop: uvloop's has no wheel for every platform."""
    modules = tmp_path_factory.mktemp("modules")
    if request.param == "asyncio":
        (modules / "sitecustomize.py").write_text("import sys\nsys.modules['uvloop'] = None\n")
    folder = small_folder(tmp_path_factory.mktemp("models") / "small")
    with ServerProcess(modules=modules, model_path=folder, threads=1, client_timeout_seconds=2) as running:
        yield running
        assert running.stop() == 0, running.describe()


def exchange(server: ServerProcess, data: bytes) -> tuple[list[int], bytes]:
    """The statuses that come back until the server closes, and everything that was read."""
    address = httpx.URL(server.url)
    received = b""
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(data)
        while piece := connection.recv(65536):
            received += piece
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received)], received


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET /healthz HTTP/3.0\r\n" + HOST + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        POST + b"Content-Length: 1\r\n" + CHUNKED + b"\r\n1\r\na\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        POST + CHUNKED + b"\r\nzz\r\na\r\n0\r\n\r\n",
        POST + CHUNKED + b"\r\n1;" + b"x" * 400_000,
        b"GET ftp://x/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http:///healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://me@x/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
def test_what_is_not_valid_is_refused_in_the_contracts_shape(small: ServerProcess, data: bytes) -> None:
    statuses, received = exchange(small, data)
    assert statuses == [400]
    assert b'"code":"invalid_http"' in received
    assert b"\r\nX-Request-ID: " in received


def test_pipelined_requests_are_answered_in_order_and_what_is_wrong_is_said_in_its_turn(small: ServerProcess) -> None:
    statuses, received = exchange(small, POST + IMAGE + b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n\x16\x03\x01")
    assert statuses == [200, 404, 400]
    assert received.index(b'"results"') < received.index(b"not_found") < received.index(b"invalid_http")
    assert exchange(small, (POST + IMAGE) * 20 + LAST)[0] == [200] * 21


def test_a_request_that_asks_for_another_protocol_is_answered_with_its_body(small: ServerProcess) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    assert exchange(small, POST + upgrade + IMAGE + LAST)[0] == [200, 200]
    chunks = b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(JPEG), JPEG)
    assert exchange(small, POST + upgrade + CHUNKED + chunks + LAST)[0] == [200, 200]


def test_trailers_are_no_headers(small: ServerProcess) -> None:
    body = b"\r\n%x\r\n%b\r\n0\r\nX-Model-Variant: nonsense\r\n\r\n" % (len(JPEG), JPEG)
    assert exchange(small, POST + CHUNKED + body + LAST)[0] == [200, 200]


def test_values_lose_the_spaces_around_them(small: ServerProcess) -> None:
    _, received = exchange(small, LAST.replace(b"\r\n\r\n", b"\r\nX-Request-ID:  mine \t \r\n\r\n"))
    assert b": mine\r\n" in received


def test_whoever_waits_for_100_continue_is_told(small: ServerProcess) -> None:
    statuses, _ = exchange(small, POST + b"Expect: 100-continue\r\nConnection: close\r\n" + IMAGE)
    assert statuses in ([100, 200], [200])


def test_answers_that_have_been_sent_have_been_counted(small: ServerProcess) -> None:
    """Counting waits until an answer is out, but no reader is to notice."""

    def counts() -> list[float]:
        text = httpx.get(f"{small.url}/metrics").text
        names = (
            "tessera_images_total",
            "tessera_routed_requests_total",
            "tessera_request_duration_seconds_count",
            'tessera_request_stage_seconds_count{stage="output"',
        )
        return [sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)) for name in names]

    with httpx.Client(base_url=small.url) as client:
        before = counts()
        for number in range(1, 6):
            assert client.post("/v1/classify", content=JPEG).status_code == 200
            now = [after - earlier for earlier, after in zip(before, counts(), strict=True)]
            assert now[0] == now[1] == now[2] == number, now


def test_a_large_body_refused_before_it_has_come_leaves_the_connection_usable(small: ServerProcess) -> None:
    address, body = httpx.URL(small.url), b"a" * 400_000
    head = POST + b"X-Model-Variant: fast\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(head + body[:150_000])
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        connection.sendall(body[150_000:] + LAST)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("target", [b"http://other:80/healthz", b"HTTP://other/healthz?", b"https://[::1]:8/healthz"])
def test_an_absolute_target_is_the_same_as_its_path(small: ServerProcess, target: bytes) -> None:
    for method in (b"GET", b"HEAD"):
        request = method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert exchange(small, request)[0] == [200]
    assert exchange(small, b"POST http://x/v1/classify?top_k=1 HTTP/1.1\r\n" + HOST + IMAGE + LAST)[0] == [200, 200]
    assert exchange(small, LAST.replace(b"/healthz", b"http://x/nothing"))[0] == [404]
    assert exchange(small, LAST.replace(b"/healthz", b"http://x"))[0] == [200]  # the page, at /
    assert exchange(small, LAST.replace(b"/healthz", b"http://x?a=/healthz"))[0] == [422]  # which takes no query


def test_any_number_of_pipelined_requests_is_answered(small: ServerProcess) -> None:
    get = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    assert exchange(small, get * 1000 + LAST)[0] == [200] * 1001
    chunked = POST + CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(JPEG), JPEG)
    assert exchange(small, (get * 50 + POST + IMAGE + get * 50 + chunked) * 3 + LAST)[0] == [200] * 307


def half_closed(server: ServerProcess, data: bytes, pause: float = 0.0) -> bytes:
    """What comes back to a client that closes its sending side behind what it sends."""
    address = httpx.URL(server.url)
    received = b""
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(data)
        time.sleep(pause)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_a_half_closed_client_gets_the_answers_to_what_it_has_sent_whole(small: ServerProcess, pause: float) -> None:
    def statuses(data: bytes) -> list[bytes]:
        return re.findall(rb"HTTP/1\.1 (\d+) ", half_closed(small, data, pause))

    get = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(get) == [b"200"]
    assert statuses(POST + IMAGE) == [b"200"]
    assert statuses((POST + IMAGE) * 5 + get * 200) == [b"200"] * 205
    assert statuses(POST + b"Expect: 100-continue\r\n" + IMAGE)[-1] == b"200"
    many = httpx.Request("POST", "http://x", files=[("file", JPEG)] * 32)
    body, content_type = many.read(), many.headers["content-type"].encode()
    form = POST + b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (content_type, len(body), body)
    received = half_closed(small, form, pause)
    head, _, answer = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    if not pause:  # else the answer may be on its way before the client has closed
        assert b"\r\nconnection: close" in head
    assert len(json.loads(answer)["results"]) == 32


def test_what_a_half_closed_client_has_not_finished_is_refused(small: ServerProcess) -> None:
    for data, expected in (
        (b"GET /healthz HTTP/1.1\r\nHos", [b"400"]),
        (POST + b"Content-Length: 100\r\n\r\nabc", [b"400"]),
        (POST + IMAGE + b"GET /heal", [b"200", b"400"]),
        (b"", []),
        (POST + IMAGE + b"\r\n", [b"200"]),
    ):
        assert re.findall(rb"HTTP/1\.1 (\d+) ", half_closed(small, data)) == expected, data


def test_head_is_answered_wherever_get_is(small: ServerProcess) -> None:
    with httpx.Client(base_url=small.url) as client:
        document = client.get("/openapi.json").json()
        pages = [path for path, methods in document["paths"].items() if "get" in methods]
        assert len(pages) > 10
        for page in (*pages, "/docs", "/openapi.json"):
            path = page.format(model="small", version="1", name="small", variant="baseline")
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            assert head.headers.get("content-type") == got.headers.get("content-type")
            assert "content-length" in head.headers
            assert client.get("/healthz").json() == {"status": "alive"}, "the connection is still in step"
        refused = client.head("/v1/classify")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert client.delete("/healthz").headers["allow"] == "GET, HEAD"
        assert client.head("/nothing").status_code == 404
