"""Clients that are slow, many or greedy, against a real server with small limits."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import imagefiles
from tests.fuzz.images import attack, mutations
from tests.servers import ServerProcess
from tests.small_model import small_folder

PATH = "/v1/classify"
JPEG = imagefiles.jpeg(64, 48)
CONNECTIONS = 12


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(
        model_path=small_folder(tmp_path_factory.mktemp("models") / "small"),
        max_connections=CONNECTIONS,
        client_timeout_seconds=0.5,
        keep_alive_seconds=1,
        max_body_bytes=100_000,
        max_upload_bytes=150_000,
        threads=1,
    ) as running:
        yield running
        assert running.stop() == 0, running.describe()


def connect(server: ServerProcess) -> socket.socket:
    address = httpx.URL(server.url)
    return socket.create_connection((address.host, address.port), timeout=30)


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the server closes; a reset counts as the end."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def dribble(connection: socket.socket, data: bytes, pause: float = 0.1) -> None:
    """Send byte by byte until the server cuts the connection off."""
    try:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(pause)
    except OSError:
        return
    raise AssertionError("the server took it all")


def alive(server: ServerProcess) -> bool:
    with server.client() as client:
        return client.post(PATH, content=JPEG).status_code == 200


@pytest.mark.effect_of("client_timeout_seconds")
def test_slow_headers_are_cut_off(strict: ServerProcess) -> None:
    with connect(strict) as silent, connect(strict) as slow:
        dribble(slow, b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"x" * 1000)
        assert read_to_end(silent) == b""
    assert alive(strict)


def test_headers_after_an_answer_are_bounded_like_the_first(strict: ServerProcess) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        dribble(connection, b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"x" * 1000)


def test_a_body_that_nobody_reads_is_bounded(strict: ServerProcess) -> None:
    with connect(strict) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404")
        dribble(connection, b"x" * 1000)


def test_a_reader_that_stops_is_cut_off(strict: ServerProcess) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = httpx.URL(strict.url)
        connection.settimeout(30)
        connection.connect((address.host, address.port))
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nX-Junk: " + b"x" * 8000 + b"\r\n\r\n"
        try:
            for _ in range(10_000):
                connection.sendall(request)
        except TimeoutError:
            raise AssertionError("the server neither reads nor closes") from None
        except OSError:
            return
    raise AssertionError("answers piled up without end")


@pytest.mark.effect_of("keep_alive_seconds")
def test_an_idle_connection_is_closed_and_not_before(strict: ServerProcess) -> None:
    with connect(strict) as connection:
        for _ in range(3):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            time.sleep(0.7)  # longer than the client's time for headers, shorter than that for idleness
        assert read_to_end(connection) == b""


@pytest.mark.effect_of("max_connections")
def test_too_many_connections_are_told_so(strict: ServerProcess) -> None:
    connections = [connect(strict) for _ in range(CONNECTIONS + 6)]
    try:
        answers = [read_to_end(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    refused = [answer for answer in answers if answer]
    assert len(refused) >= 6
    for answer in refused:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head.lower()
        assert json.loads(body)["code"] == "too_many_connections"
    assert alive(strict)


@pytest.mark.effect_of("max_upload_bytes")
def test_uploads_together_are_bounded_and_given_back(strict: ServerProcess) -> None:
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
    with connect(strict) as first, connect(strict) as second:
        first.sendall(head + b"x" * 80_000)
        second.sendall(head + b"x" * 80_000)
        # Whichever the server reads last is refused; nobody has sent all of its body.
        answers = []
        for connection in (first, second):
            connection.settimeout(3)
            try:
                answers.append(connection.recv(65536))
            except TimeoutError:
                continue
        (refused,) = answers
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"too_many_uploads" in refused
    for _ in range(3):
        assert alive(strict), "what was held is free again"


def test_more_header_lines_than_anyone_needs_are_refused(strict: ServerProcess) -> None:
    with strict.client() as client:
        answer = client.get("/healthz", headers=[(f"X-{number}", "1") for number in range(200)])
        assert (answer.status_code, answer.json()["code"]) == (431, "too_many_headers")


def test_headers_of_a_part_are_bounded(strict: ServerProcess) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\nX-Junk: ' + b"x" * 9000 + b"\r\n\r\nx\r\n--b--\r\n"
    with strict.client() as client:
        answer = client.post(PATH, content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_multipart")


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/docs/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v2/models/..%2f..%2fetc/ready",
        "/v2/models/%2Fetc%2Fpasswd",
        "/v2/repository/models/..%2f..%2ftmp/load",
    ],
)
def test_no_path_reaches_the_file_system(path: str, strict: ServerProcess) -> None:
    for method in (b"GET", b"POST"):
        with connect(strict) as connection:
            connection.sendall(method + b" " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = read_to_end(connection)
        assert answer[9:12] in (b"403", b"404", b"405"), answer
        assert b"root:" not in answer


def test_damaged_images_get_clean_answers(strict: ServerProcess) -> None:
    answers = attack(strict, mutations(seed=1, count=2000))
    assert answers.total() == 2000
    assert answers[200, "ok"] > 100
    assert answers[400, "corrupt_image"] > 100
    assert {status for status, _ in answers} <= {200, 400, 413, 415}


def test_the_service_is_whole_after_all_that(strict: ServerProcess) -> None:
    with ThreadPoolExecutor(4) as clients:
        assert all(clients.map(lambda _: alive(strict), range(20)))
    opened = list(Path(f"/proc/{strict.process.pid}/fd").iterdir())
    assert len(opened) < 60
