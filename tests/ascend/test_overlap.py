"""Batches in flight over HTTP: copies overlap executions, every device works, and losing one in mid-flight is clean."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ascend.service import VARIANTS, account_of, answers, serving, until
from tests.imagefiles import jpeg
from tests.processes import children, replaced

PHOTOS = [jpeg(200 + 20 * number, 240) for number in range(8)]


def predictions(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"][0]["predictions"]
    return found


def depth(client: httpx.Client) -> float:
    text = client.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("tessera_queue_depth_images ")).split()[1])


@pytest.mark.parametrize(("devices", "frontends"), [(1, 0), (2, 0), (2, 2)])
def test_sixteen_clients_keep_every_device_and_its_copies_busy(
    devices: int, frontends: int, small_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(small_service, tmp_path, monkeypatch, devices, frontends=frontends) as (server, faults):
        with server.client() as client:
            expected = {v: [predictions(answers(client, photo, v)) for photo in PHOTOS] for v in VARIANTS}
        faults.set("count=1;slow=4")

        def ask(number: int) -> None:
            variant, photo = VARIANTS[number % 2], number // 2 % len(PHOTOS)
            with server.client() as client:
                assert predictions(answers(client, PHOTOS[photo], variant)) == expected[variant][photo]

        with ThreadPoolExecutor(16) as clients:
            list(clients.map(ask, range(80)))
    account = account_of(tmp_path)
    assert account["overlapped_copies"] >= 5, account
    ran = account["executions"][:devices]
    assert min(ran) > 0.25 * sum(ran) / devices, account


def stays(condition: Callable[[], bool]) -> None:
    """Wait until something is so ten times in a row."""
    row = 0
    deadline = time.monotonic() + 60
    while row < 10:
        assert time.monotonic() < deadline, "it never stayed so"
        row = row + 1 if condition() else 0
        time.sleep(0.03)


def test_a_device_that_is_lost_with_two_batches_in_flight(
    small_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(small_service, tmp_path, monkeypatch) as (server, faults),
        server.client() as client,
        ThreadPoolExecutor(3) as clients,
    ):
        before = predictions(answers(client, PHOTOS[0]))
        faults.set("hang=1000")
        asked = [clients.submit(answers, client, PHOTOS[0])]
        until(lambda: 'unit="cube"} 0.0' not in client.get("/metrics").text)
        asked.append(clients.submit(answers, client, PHOTOS[0]))
        stays(lambda: depth(client) == 0)
        asked.append(clients.submit(answers, client, PHOTOS[0], "baseline"))
        stays(lambda: depth(client) == 1)
        assert not any(request.done() for request in asked)
        faults.set("lost=507010*6")
        first, second, third = (request.result() for request in asked)
        for answer in (first, second):
            assert (answer.status_code, answer.json()["code"]) == (503, "device_failed"), answer.text
            assert answer.headers["Retry-After"] == "1"
        assert third.status_code in (200, 503), third.text
        until(lambda: all(answers(client, PHOTOS[0], variant).status_code == 200 for variant in VARIANTS))
        assert predictions(answers(client, PHOTOS[0])) == before
        assert client.get("/healthz").status_code == 200


def test_an_engine_process_that_is_killed_comes_back_with_its_device(
    small_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(small_service, tmp_path, monkeypatch, devices=2, frontends=2) as (server, faults),
        server.client() as client,
        ThreadPoolExecutor(8) as clients,
    ):
        expected = {variant: predictions(answers(client, PHOTOS[0], variant)) for variant in VARIANTS}
        faults.set("slow=20")
        engine = children(server)["engine"]
        asked = [clients.submit(answers, client, PHOTOS[0], VARIANTS[number % 2]) for number in range(24)]
        until(lambda: sum(request.done() for request in asked) >= 4)
        os.kill(engine, signal.SIGKILL)
        until(replaced(server, "engine", engine))
        for number, request in enumerate(asked):
            answer = request.result()
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                assert predictions(answer) == expected[VARIANTS[number % 2]]
        for variant in VARIANTS:
            assert predictions(answers(client, PHOTOS[0], variant)) == expected[variant]
        metrics = client.get("/metrics").text
        for device in (0, 1):
            assert f'tessera_device_healthy{{device="{device}",variant="optimised"}} 1.0' in metrics
