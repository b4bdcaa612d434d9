"""Clients that are slow, many or greedy, against a real server with small limits."""

from __future__ import annotations

import json
import select
import socket
import threading
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
from tests.waiting import until

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


def connect(server: ServerProcess, source: str = "127.0.0.1") -> socket.socket:
    address = httpx.URL(server.url)
    return socket.create_connection((address.host, address.port), timeout=30, source_address=(source, 0))


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


class Attack:
    """Connections that hold a beginning of a request, and are made again when they are closed; a context manager.

    Args:
        server: Whom they attack.
        count: How many there are at once.
        beginning: What each sends at once.
        source: The address that they come from.
    """

    def __init__(self, server: ServerProcess, count: int, beginning: bytes, source: str = "127.0.0.2") -> None:
        self._server = server
        self._beginning = beginning
        self._source = source
        self._open = [self._begin() for _ in range(count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._dribble)

    def __enter__(self) -> Attack:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for connection in self._open:
            connection.close()

    def _begin(self) -> socket.socket:
        connection = connect(self._server, self._source)
        connection.sendall(self._beginning)
        connection.setblocking(False)
        return connection

    def _dribble(self) -> None:
        """A byte a second on each connection, half of them at a time."""
        turn = 0
        while not self._stop.wait(0.5):
            turn = 1 - turn
            for number in range(turn, len(self._open), 2):
                try:
                    self._open[number].sendall(b"x")
                except OSError:
                    self._open[number].close()
                    self._open[number] = self._begin()


PROBES = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
SLOW_HEAD = b"GET /v1/models HTTP/1.1\r\nX-Slow: "
SLOW_BODY = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(
        model_path=small_folder(tmp_path_factory.mktemp("models") / "small"), max_connections=100, threads=1
    ) as running:
        yield running
        assert running.stop() == 0, running.describe()


@pytest.mark.parametrize("beginning", [b"", SLOW_HEAD, SLOW_BODY], ids=["nothing", "head", "body"])
def test_slow_connections_of_one_address_keep_nobody_out(beginning: bytes, attacked: ServerProcess) -> None:
    with Attack(attacked, 250, beginning):
        for _ in range(15):
            with attacked.client() as client:
                assert client.post(PATH, content=JPEG).status_code == 200
                for probe in PROBES:
                    assert client.get(probe).status_code == 200
        with ThreadPoolExecutor(20) as clients:
            assert all(clients.map(lambda _: alive(attacked), range(40)))
    with attacked.client() as client:
        assert 'tessera_rejections_total{reason="too_many_connections"}' in client.get("/metrics").text
    assert any("connections are refused" in line for line in attacked.log)


def test_slow_connections_of_the_same_address_as_everybodys_end_up_giving_way(attacked: ServerProcess) -> None:
    with Attack(attacked, 250, SLOW_HEAD, source="127.0.0.1"), attacked.client() as client:
        until(lambda: client.post(PATH, content=JPEG).status_code == 200)


def long_request(server: ServerProcess) -> socket.socket:
    """A connection whose request is being answered until it is closed."""
    connection = connect(server)
    body = httpx.Request("POST", "http://x", files=[("file", JPEG)] * 2)
    content = body.read()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {body.headers['content-type']}\r\n"
    connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content)
    return connection


# Image decoders that wait for a file to go away.
STALLED = """
import os, time
from PIL import Image

whole = Image.open

def stalled(*arguments, **named):
    while os.path.exists({gate!r}):
        time.sleep(0.02)
    return whole(*arguments, **named)

Image.open = stalled
"""


def test_probes_are_answered_although_every_connection_is_at_work(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "sitecustomize.py").write_text(STALLED.format(gate=str(gate)))
    folder = small_folder(tmp_path / "small")
    with ServerProcess(modules=tmp_path, model_path=folder, max_connections=8, threads=1) as server:
        busy = [long_request(server) for _ in range(8)]

        def refused() -> bool:
            with server.client() as client:
                return client.get("/v1/models").status_code == 503

        until(refused)
        silent = [connect(server, "127.0.0.2") for _ in range(100)]
        for path in PROBES:
            with server.client() as client:
                for answer in (client.get(path), client.head(path)):
                    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        with server.client() as client:
            answer = client.post(PATH, content=JPEG)
            assert (answer.status_code, answer.json()["code"]) == (503, "too_many_connections")
            assert answer.headers["Retry-After"] == "1"
        gate.unlink()
        assert all(connection.recv(65536).startswith(b"HTTP/1.1 200") for connection in busy)
        for connection in (*silent, *busy):
            connection.close()
        assert server.stop() == 0, server.describe()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_client_that_left_is_told_from_one_that_only_sends_nothing_more(loop: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    without = "import sys\nsys.modules['uvloop'] = None\n" if loop == "asyncio" else ""
    (tmp_path / "sitecustomize.py").write_text(without + STALLED.format(gate=str(gate)))
    folder = small_folder(tmp_path / "small")
    with ServerProcess(modules=tmp_path, model_path=folder, threads=1, request_timeout_ms=600_000) as server:
        left = 'tessera_request_duration_seconds_count{outcome="client_disconnected",variant="optimised"} 1.0'

        def noticed() -> bool:
            with server.client() as client:
                return left in client.get("/metrics").text

        with long_request(server) as waiting:
            waiting.shutdown(socket.SHUT_WR)
            long_request(server).close()
            until(noticed)
            gate.unlink()
            assert read_to_end(waiting).startswith(b"HTTP/1.1 200 OK\r\n")
        assert noticed(), "there was only one"
        assert server.stop() == 0, server.describe()


def test_a_body_slower_than_any_line_is_given_up_and_its_connection_closed(strict: ServerProcess) -> None:
    for path, status in ((PATH, 408), ("/v2/models/small/infer", 400)):
        with connect(strict) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n".encode())
            while not select.select([connection], [], [], 0.1)[0]:
                connection.sendall(b"x")
            head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in head.lower()
        assert json.loads(body)["code"] == "body_timeout"


def test_running_out_of_descriptors_is_told_at_the_start_and_probes_live_through_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))\n"
    )
    folder = small_folder(tmp_path / "small")
    with ServerProcess(modules=tmp_path, model_path=folder, threads=1) as server:
        (warning,) = [line for line in server.log if "max_connections is more than" in line]
        assert "open_files=300" in warning
        with Attack(server, 400, SLOW_HEAD):
            for _ in range(10):
                with server.client() as client:
                    assert client.get("/healthz").status_code == 200
                    assert client.post(PATH, content=JPEG).status_code == 200
        assert any("file descriptors have nearly run out" in line for line in server.log)
        assert server.stop() == 0, server.describe()


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
    answers = attack(strict, mutations(seed=1, count=800))
    assert answers.total() == 800
    assert answers[200, "ok"] > 40
    assert answers[400, "corrupt_image"] > 40
    assert {status for status, _ in answers} <= {200, 400, 413, 415}


def test_the_service_is_whole_after_all_that(strict: ServerProcess) -> None:
    with ThreadPoolExecutor(4) as clients:
        assert all(clients.map(lambda _: alive(strict), range(20)))
    opened = list(Path(f"/proc/{strict.process.pid}/fd").iterdir())
    assert len(opened) < 60
