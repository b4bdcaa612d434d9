"""Batches in flight over HTTP: copies overlap executions, every device works, and losing one in mid-flight is clean."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ascend.service import VARIANTS, account_of, answers, serving
from tests.imagefiles import jpeg
from tests.processes import children, replaced
from tests.waiting import until

PHOTOS = [jpeg(200 + 20 * number, 240) for number in range(8)]


def predictions(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"][0]["predictions"]
    return found


def depth(client: httpx.Client) -> float:
    text = client.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("tessera_queue_depth_images ")).split()[1])


def stays(condition: Callable[[], bool]) -> None:
    """Wait until something is so ten times in a row."""
    row = 0

    def again() -> bool:
        nonlocal row
        row = row + 1 if condition() else 0
        return row == 10

    until(again)


def overlapped(folder: Path) -> int:
    """How many copies have overlapped an execution, as far as it has been told."""
    return int(account_of(folder)["overlapped_copies"]) if (folder / "report.json").exists() else 0


def test_copies_overlap_executions_and_a_device_may_be_lost_with_two_batches_in_flight(
    small_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(small_service, tmp_path, monkeypatch) as (server, faults),
        server.client() as client,
        ThreadPoolExecutor(16) as clients,
    ):
        before = predictions(answers(client, PHOTOS[0]))
        (tmp_path / "report.json").unlink(missing_ok=True)
        faults.set("count=1;hold=1")
        asked = [clients.submit(answers, client, PHOTOS[0])]
        until(lambda: 'unit="cube"} 0.0' not in client.get("/metrics").text)
        asked.append(clients.submit(answers, client, PHOTOS[0]))
        until(lambda: overlapped(tmp_path) > 0)
        assert depth(client) == 0
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
        assert client.get("/healthz").status_code == 200
        assert any("507010" in line for line in server.log)
        assert not any("507046" in line for line in server.log), "it was lost; nobody waited for it in vain"
        for answer in clients.map(lambda _: answers(client, PHOTOS[0]), range(48)):
            assert predictions(answer) == before


def test_an_engine_process_that_is_killed_comes_back_and_sixteen_clients_keep_both_devices_busy(
    small_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(number: int) -> httpx.Response:
        with server.client() as fresh:  # a connection each, so both frontends get some
            return answers(fresh, PHOTOS[number // 2 % len(PHOTOS)], VARIANTS[number % 2])

    with (
        serving(small_service, tmp_path, monkeypatch, devices=2, frontends=2) as (server, faults),
        ThreadPoolExecutor(16) as clients,
    ):
        expected = [predictions(ask(number)) for number in range(2 * len(PHOTOS))]
        faults.set("slow=20")
        engine = children(server)["engine"]
        asked = [clients.submit(ask, number) for number in range(2 * len(PHOTOS))]
        until(lambda: any(request.done() for request in asked))
        os.kill(engine, signal.SIGKILL)
        until(replaced(server, "engine", engine))
        for request, wanted in zip(asked, expected, strict=True):
            answer = request.result()
            assert answer.status_code in (200, 503), answer.text
            assert answer.status_code == 503 or predictions(answer) == wanted
        (tmp_path / "report.json").unlink(missing_ok=True)
        faults.set("count=1;hold=1*1")
        asked = [clients.submit(ask, number) for number in range(80)]
        until(lambda: overlapped(tmp_path) > 0)
        faults.set("")
        for number, request in enumerate(asked):
            assert predictions(request.result()) == expected[number % len(expected)]
        with server.client() as client:
            metrics = client.get("/metrics").text
        for device in (0, 1):
            assert f'tessera_device_healthy{{device="{device}",variant="optimised"}} 1.0' in metrics
    account = account_of(tmp_path)
    ran = account["executions"][:2]
    assert min(ran) > 0.25 * sum(ran) / 2, account
