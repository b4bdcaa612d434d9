"""GET /v1/live on real servers: events come, counts are of all processes, and watching keeps nobody from stopping."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import imagefiles
from tests.servers import ServerProcess


def events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


@pytest.mark.parametrize("frontends", [0, 2])
def test_events_tell_of_all_requests_until_the_service_stops(frontends: int) -> None:
    with ServerProcess(frontends=frontends) as server, server.client() as client:
        with client.stream("GET", "/v1/live") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            told = events(answer)
            next(told)
            for _ in range(6):
                assert httpx.post(f"{server.url}/v1/classify", content=imagefiles.jpeg(), timeout=60).status_code == 200
            for event in told:
                if event["variants"]["optimised"]["images_per_second"]:
                    break
            now = event["variants"]["optimised"]
            assert 0 < now["p50_ms"] <= now["p99_ms"]
            assert now["batch_size"] >= 1
            server.process.terminate()
            assert [event for event in told if "variants" not in event] == [], "the stream ends"
        assert server.wait() == 0


def test_head_ends(server: ServerProcess) -> None:
    with server.client() as client:
        assert client.head("/v1/live").status_code == 200
        assert client.get("/v1/live?since=1").status_code == 422
