"""Images that the service itself trips over: only their own request fails, and the service goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.clients import pictures, probabilities, same
from tests.imagefiles import encode
from tests.processes import children
from tests.servers import REPOSITORY, ServerProcess
from tests.small_model import small_folder
from tests.waiting import until

PATH = "/v1/classify"
POISON = encode(Image.new("RGB", (224, 224), (255, 0, 255)), "PNG")  # see tests/poison/sitecustomize.py
CYAN = encode(Image.new("RGB", (224, 224), (0, 255, 255)), "PNG")


@pytest.fixture(scope="module")
def vulnerable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two frontends, and an engine process that a magenta image kills."""
    folder = small_folder(tmp_path_factory.mktemp("models") / "small", seed=3)
    with ServerProcess(
        modules=REPOSITORY / "tests" / "poison",
        frontends=2,
        model_path=folder,
        backend="cpu",  # ONNX Runtime may be quicker at so small a network, and is not poisoned
    ) as running:
        yield running
        assert running.stop() == 0, running.describe()


def total(server: ServerProcess, name: str, **labels: str) -> float:
    with server.client() as client:
        text = client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def ask(server: ServerProcess, files: list[bytes]) -> httpx.Response:
    with server.client() as fresh:
        return fresh.post(PATH, files=[("file", file) for file in files])


def test_only_the_guilty_fails(vulnerable: ServerProcess) -> None:
    innocent = [[picture] for picture in pictures()] * 2 + [pictures()]
    expected = [probabilities(ask(vulnerable, files).content) for files in innocent]
    guilty = [[POISON], [pictures()[0], POISON]]
    restarts = total(vulnerable, "tessera_process_restarts_total", role="engine")
    decoded = total(vulnerable, "tessera_stage_duration_seconds_count", stage="decode")
    images = sum(map(len, innocent + guilty))

    engine = children(vulnerable)["engine"]
    os.kill(engine, signal.SIGSTOP)  # until everybody has given it what it is to run
    with ThreadPoolExecutor(len(innocent) + len(guilty)) as pool:
        asked = [pool.submit(ask, vulnerable, files) for files in innocent + guilty]
        until(
            lambda: total(vulnerable, "tessera_stage_duration_seconds_count", stage="decode") >= decoded + images,
        )
        os.kill(engine, signal.SIGCONT)
        answers = [future.result() for future in asked]

    for answer, right in zip(answers, expected, strict=False):
        assert answer.status_code == 200, answer.text
        assert all(map(same, probabilities(answer.content), right))
    for answer in answers[len(innocent) :]:
        assert (answer.status_code, answer.json()["code"]) == (503, "engine_lost")
        assert int(answer.headers["Retry-After"]) >= 1
    assert total(vulnerable, "tessera_process_restarts_total", role="engine") <= restarts + 2 * len(guilty)
    until(lambda: ask(vulnerable, [pictures()[0]]).status_code == 200)


def test_a_fault_of_ours_in_decoding_is_a_500_and_in_the_log(vulnerable: ServerProcess) -> None:
    answer = ask(vulnerable, [CYAN])
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "cyan" not in answer.text
    until(lambda: any("AssertionError: cyan" in line for line in vulnerable.log))
    assert any("Traceback" in line for line in vulnerable.log)
    assert ask(vulnerable, [pictures()[0]]).status_code == 200
