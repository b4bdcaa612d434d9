"""What Triton's perf_analyzer sends over HTTP, byte by byte as libcurl does for its client library, and what it reads.

The program itself needs no Python and comes in NVIDIA's images only; these are its requests, after the sources of
triton-inference-server/client (http_client.cc) of 2024.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPResponse
from typing import Any

import numpy as np
import pytest

from tests.integration.oip.requests import MODEL, PATH
from tests.servers import ServerProcess
from tests.waiting import NEVER

CLASSES = 10


class Connection:
    """One connection that is kept, as libcurl keeps it."""

    def __init__(self, server: ServerProcess) -> None:
        self.host = server.url.removeprefix("http://")
        name, _, port = self.host.partition(":")
        self.end = socket.create_connection((name, int(port)), NEVER)

    def ask(self, start: str, headers: list[str], body: bytes = b"") -> tuple[HTTPResponse, bytes]:
        first = [f"{start} HTTP/1.1", f"Host: {self.host}", "User-Agent: libcurl-agent/1.0", "Accept: */*"]
        self.end.sendall("\r\n".join([*first, *headers, "", ""]).encode() + body)
        answer = HTTPResponse(self.end)
        answer.begin()
        return answer, answer.read()

    def close(self) -> None:
        self.end.close()

    def get(self, path: str) -> Any:
        answer, body = self.ask(f"GET {path}", [])
        assert answer.status == 200, body
        return json.loads(body)

    def infer(
        self, images: np.ndarray, *, identity: str = "", outputs: bool = True, packed: bool = False, **parameters: Any
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Run normalised images; returns the answer's JSON and the scores behind it."""
        document: dict[str, Any] = {"id": identity}
        if parameters or not outputs:
            document["parameters"] = {**parameters, **({} if outputs else {"binary_data_output": True})}
        entry = {"name": "input", "datatype": "FP32", "shape": list(images.shape)}
        document["inputs"] = [{**entry, "parameters": {"binary_data_size": images.nbytes}}]
        if outputs:
            document["outputs"] = [{"name": "output", "parameters": {"binary_data": True}}]
        header = json.dumps(document, separators=(",", ":")).encode()
        body = header + images.tobytes()
        body = gzip.compress(body, 1) if packed else body
        answer, data = self.ask(
            f"POST {PATH}/infer",
            [
                f"Inference-Header-Content-Length: {len(header)}",
                "Content-Type: application/octet-stream",
                *(["Content-Encoding: gzip"] if packed else []),
                f"Content-Length: {len(body)}",
            ],
            body,
        )
        assert answer.status == 200, data
        assert int(answer.headers["Content-Length"]) == len(data), "it reserves so much"
        length = int(answer.headers["Inference-Header-Content-Length"])
        told = json.loads(data[:length])
        (output,) = told["outputs"]
        assert output["parameters"]["binary_data_size"] == len(data) - length
        return told, np.frombuffer(data[length:], "<f4").reshape(output["shape"])


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[Connection]:
    with closing(Connection(server)) as opened:
        yield opened


def images(count: int, seed: int = 0) -> np.ndarray:
    """Random numbers, which is what it sends unless it is given a file."""
    return np.random.default_rng(seed).random((count, 3, 224, 224), np.float32)


def test_it_learns_the_model_and_its_statistics_before_it_begins(connection: Connection) -> None:
    assert "statistics" in connection.get("/v2")["extensions"]
    metadata = connection.get(PATH)
    assert [entry["shape"] for entry in metadata["inputs"]] == [[-1, 3, 224, 224]]
    assert connection.get(f"{PATH}/config")["max_batch_size"] >= 1
    (entry,) = connection.get(f"{PATH}/versions/2/stats")["model_stats"]
    assert entry["inference_stats"]["success"].keys() == {"count", "ns"}
    ready, _ = connection.ask("GET /v2/health/ready", [])
    assert ready.status == 200


@pytest.mark.parametrize(
    "form",
    [
        {"identity": "7"},
        {},
        {"outputs": False},
        {"identity": "8", "priority": 2, "timeout": 600_000_000},
        {"packed": True},
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_its_infer_requests_are_answered_in_binary(connection: Connection, form: dict[str, Any], count: int) -> None:
    told, scores = connection.infer(images(count), **form)
    assert told["model_name"] == MODEL
    assert told.get("id", "") == form.get("identity", "")
    assert scores.shape == (count, CLASSES)
    assert np.isfinite(scores).all()


def test_what_it_counts_at_its_side_is_what_statistics_say(server: ServerProcess, connection: Connection) -> None:
    """Four callers at once on kept connections, between two looks at the statistics, which it subtracts."""

    def read() -> dict[str, Any]:
        (entry,) = connection.get(f"{PATH}/versions/2/stats")["model_stats"]
        return dict(entry)

    before = read()

    def call(seed: int) -> list[int]:
        with closing(Connection(server)) as own:
            return [int(own.infer(images(1, seed), identity=str(number))[0]["id"]) for number in range(4)]

    with ThreadPoolExecutor(4) as callers:
        assert list(callers.map(call, range(4))) == [[0, 1, 2, 3]] * 4
    after = read()
    assert after["inference_count"] - before["inference_count"] == 16
    success = [entry["inference_stats"]["success"] for entry in (before, after)]
    assert success[1]["count"] - success[0]["count"] == 16
    assert success[1]["ns"] > success[0]["ns"]
    assert 1 <= after["execution_count"] - before["execution_count"] <= 16
