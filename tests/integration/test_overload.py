"""Limits of a small server: each setting bites, overload is refused politely, and clients that leave do no harm."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tessera.app.main import create_app
from tessera.app.settings import Settings
from tests import imagefiles
from tests.holding import Holding
from tests.servers import ServerProcess
from tests.small_model import small_folder
from tests.waiting import until

PATH = "/v1/classify"
JPEG = imagefiles.jpeg(64, 48)


@pytest.fixture(scope="module")
def small(holding: Holding) -> Iterator[ServerProcess]:
    with holding.server(
        default_variant="baseline",
        threads=1,
        decode_threads=1,
        max_batch=2,
        max_queue_images=8,
        max_images_per_request=8,
        max_body_bytes=200_000,
        max_pixels=500_000,
        request_timeout_ms=600_000,
        log_level="warning",
    ) as running:
        yield running
        assert running.stop() == 0, running.describe()


def files(count: int) -> list[tuple[str, bytes]]:
    return [("file", JPEG)] * count


def sample(server: ServerProcess, name: str, **labels: str) -> float:
    with server.client() as client:
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    return sum(
        entry.value
        for family in families
        for entry in family.samples
        if entry.name == name and labels.items() <= entry.labels.items()
    )


@pytest.mark.effect_of("default_variant", "threads")
def test_the_default_variant_is_the_configured_one(small: ServerProcess) -> None:
    with small.client() as client:
        assert client.post(PATH, content=JPEG).json()["variant"] == "baseline"
        model = client.get("/v1/models").json()["models"][0]
    assert model["default_variant"] == "baseline"
    assert {variant["threads"] for variant in model["variants"]} == {1}


@pytest.mark.effect_of("decode_threads")
@pytest.mark.parametrize("count", [1, 3])
def test_there_are_as_many_decoders_as_decode_threads(count: int, tmp_path: Path) -> None:
    """In this process: the operating system knows the names of Python's threads from Python 3.14 on only."""

    def decoders() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "tessera-decode"}

    async def decoders_of_a_service() -> set[threading.Thread]:
        folder = small_folder(tmp_path / "small")
        app = create_app(Settings(model_path=folder, cache_dir=tmp_path / "cache", decode_threads=count))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
        ):
            while not app.state.service.ready:
                await asyncio.sleep(0.01)
            assert (await client.post(PATH, files=files(6))).status_code == 200
            return decoders()

    before = decoders()
    assert len(asyncio.run(decoders_of_a_service()) - before) == count


@pytest.mark.effect_of("max_batch")
def test_batches_keep_to_max_batch(small: ServerProcess) -> None:
    with small.client() as client:
        results = client.post(PATH, files=files(8)).json()["results"]
    assert {result["timing"]["batch_size"] for result in results} <= {1, 2}


@pytest.mark.effect_of("max_body_bytes", "max_pixels", "max_images_per_request")
@pytest.mark.parametrize(
    ("send", "code"),
    [
        ({"content": b"\xff" * 200_001}, "body_too_large"),
        ({"content": imagefiles.png(1000, 501)}, "image_too_large"),
        ({"files": files(9)}, "too_many_images"),
    ],
)
def test_limits_are_the_configured_ones(send: dict[str, object], code: str, small: ServerProcess) -> None:
    with small.client() as client:
        assert client.post(PATH, **send).json()["code"] == code
        assert client.post(PATH, content=imagefiles.png(1000, 500)).status_code == 200


@pytest.mark.effect_of("max_queue_images")
def test_a_full_queue_refuses_with_a_time_to_come_back(small: ServerProcess, holding: Holding) -> None:
    def ask(_: int) -> httpx.Response:
        with small.client() as client:
            return client.post(PATH, files=files(4))

    def refusals() -> float:
        return sum(sample(small, "tessera_rejections_total", reason=reason) for reason in reasons)

    reasons = {"queue_full", "deadline_unreachable"}
    before = refusals()
    with ThreadPoolExecutor(24) as clients:
        with holding():
            asked = [clients.submit(ask, number) for number in range(24)]
            until(lambda: refusals() >= before + 22)
        answers = [request.result() for request in asked]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert len(refused) == 22, "two requests of 4 images have room"
    assert {answer.json()["code"] for answer in refused} <= reasons
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
    assert refusals() == before + len(refused)
    assert sample(small, "tessera_queue_depth_images") == 0
    assert ask(0).status_code == 200


def test_a_body_that_does_not_arrive_is_given_up(small: ServerProcess) -> None:
    with _connect(small) as connection:
        connection.sendall(_head(1000).replace(b"\r\n\r\n", b"\r\nX-Request-Timeout-Ms: 500\r\n\r\n") + b"\xff" * 10)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 408
        assert json.load(answer)["code"] == "body_timeout"


def test_a_client_that_leaves_while_uploading_does_no_harm(small: ServerProcess) -> None:
    before = sample(small, "tessera_request_duration_seconds_count", outcome="client_disconnected")
    for _ in range(20):
        with _connect(small) as connection:
            connection.sendall(_head(1000) + b"\xff" * 10)
    until(lambda: sample(small, "tessera_request_duration_seconds_count", outcome="client_disconnected") == before + 20)
    with small.client() as client:
        assert client.post(PATH, content=JPEG).status_code == 200


def test_the_work_of_a_client_that_left_is_dropped(small: ServerProcess, holding: Holding) -> None:
    def gone() -> float:
        return sample(small, "tessera_request_duration_seconds_count", outcome="client_disconnected")

    body = httpx.Request("POST", "http://x", files=files(8))
    content, content_type = body.read(), body.headers["content-type"]
    images, before = sample(small, "tessera_images_total"), gone()
    with holding():
        for number in range(2):
            with _connect(small) as connection:
                connection.sendall(_head(len(content), content_type) + content)
                until(lambda: sample(small, "tessera_queue_depth_images") > 0)
            until(lambda left=number + 1: gone() == before + left)  # type: ignore[misc]
            # A decoder ends the image that it is at before the place is free.
            until(lambda: sample(small, "tessera_queue_depth_images") == 0)
    with small.client() as client:
        assert client.post(PATH, content=JPEG).status_code == 200
    assert sample(small, "tessera_images_total") == images + 1


@pytest.mark.effect_of("request_timeout_ms")
def test_an_answer_that_comes_too_late_is_not_waited_for(holding: Holding) -> None:
    slow_to_decode = imagefiles.encode(Image.new("L", (8_000, 8_000)), "PNG")
    with holding.server(request_timeout_ms=3_000) as hasty:
        with hasty.client() as client:
            with holding():
                late = client.post(PATH, content=slow_to_decode)
            assert (late.status_code, late.json()["code"]) == (503, "deadline_exceeded")
            assert int(late.headers["Retry-After"]) >= 1
            until(lambda: sample(hasty, "tessera_queue_depth_images") == 0)
            assert client.get("/readyz").status_code == 200
        assert hasty.stop() == 0


# A service that has measured a minute a batch while it loaded, as on a machine that is very slow.
SLOW = """
import sys

if "serve" in sys.orig_argv:
    from tessera.app.served import warmup

    measured = warmup.measure_batches
    warmup.measure_batches = lambda *arguments: dict.fromkeys(measured(*arguments), 60.0)
"""


def test_what_cannot_be_answered_in_time_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    with ServerProcess(modules=tmp_path, model_path=small_folder(tmp_path / "small"), threads=1) as slow:
        with slow.client(headers={"X-Request-Timeout-Ms": "10000"}) as client:
            refused = client.post(PATH, files=files(64))
            assert (refused.status_code, refused.json()["code"]) == (503, "deadline_unreachable")
            assert int(refused.headers["Retry-After"]) >= 1
            assert sample(slow, "tessera_rejections_total", reason="deadline_unreachable") == 1
            assert sample(slow, "tessera_stage_duration_seconds_count", stage="decode") == 0
            assert client.post(PATH, content=JPEG, headers={"X-Request-Timeout-Ms": "600000"}).status_code == 200
        assert slow.stop() == 0, slow.describe()


@pytest.mark.parametrize("priority", ["high", "normal", "background"])
def test_every_priority_is_answered(priority: str, server: ServerProcess) -> None:
    with server.client(headers={"X-Priority": priority, "X-Request-Timeout-Ms": "60000"}) as client:
        assert client.post(PATH, content=JPEG).status_code == 200


@pytest.mark.effect_of("log_level")
def test_a_quiet_log_level_leaves_out_requests(small: ServerProcess, server: ServerProcess) -> None:
    for running in (small, server):
        with running.client() as client:
            client.post(PATH, content=JPEG, headers={"X-Request-ID": "look-for-me"})
    until(lambda: any("look-for-me" in line for line in server.log))
    (line,) = [line for line in server.log if "look-for-me" in line]
    assert "method=POST path=/v1/classify status=200" in line
    assert "variant=optimised outcome=ok" in line
    assert not any("look-for-me" in line for line in small.log)


def _connect(server: ServerProcess) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname is not None
    return socket.create_connection((address.hostname, address.port), timeout=30)


def _head(length: int, content_type: str = "image/jpeg") -> bytes:
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Model-Variant: baseline\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
