"""`tessera.client` against a real service whose processes may die."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import anyio
import numpy as np
import pytest
from PIL import Image

from tessera.client import AsyncClient, Classification, Client, NoAnswerError, RefusedError
from tests.chaos.clients import pictures, same
from tests.processes import children, replaced
from tests.servers import REPOSITORY, ServerProcess, environment
from tests.waiting import NEVER, until

MINUTES = 600.0


@pytest.fixture(scope="module")
def service(small_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(model_path=small_model, size="224,97,131x97", frontends=1, threads=1) as running:
        yield running
        assert running.stop() == 0, running.describe()


def scores(answer: Classification) -> dict[int, float]:
    return {prediction.index: prediction.probability for prediction in answer.predictions}


def test_an_image_may_be_given_in_any_form(service: ServerProcess, tmp_path: Path) -> None:
    file = pictures(1)[0]
    (tmp_path / "photo.jpg").write_bytes(file)
    picture = Image.open(io.BytesIO(file))
    forms = [tmp_path / "photo.jpg", str(tmp_path / "photo.jpg"), file, picture, np.asarray(picture)]
    with Client(service.url, timeout=MINUTES) as client:
        answers = [client.classify(form) for form in forms]
        together = client.classify(forms)
        assert client.classify([]) == []
    assert len(together) == len(forms)
    assert all(same(scores(answer), scores(answers[0])) for answer in (*answers, *together))
    first = answers[0]
    assert (first.model, first.variant, len(first.predictions)) == ("small", "optimised", 5)
    assert (first.label, first.probability) == (first.predictions[0].label, first.predictions[0].probability)
    assert first.timing.compute_ms > 0


def test_variant_and_number_of_labels_are_asked_for(service: ServerProcess) -> None:
    with Client(service.url, timeout=MINUTES) as client:
        answer = client.classify(pictures(1)[0], variant="baseline", top_k=2)
    assert (answer.variant, len(answer.predictions)) == ("baseline", 2)


def test_each_size_of_the_model_can_be_asked_for(service: ServerProcess) -> None:
    image = pictures(1)[0]

    def asked(query: dict[str, str]) -> dict[int, float]:
        with service.client() as http:
            (result,) = http.post("/v1/classify", params=query, content=image).json()["results"]
        return {prediction["index"]: prediction["probability"] for prediction in result["predictions"]}

    async def ask(size: int | tuple[int, int] | None) -> list[Classification]:
        async with AsyncClient(service.url, timeout=MINUTES) as client:
            return [await client.classify(image, size=size), *await client.classify([image], size=size)]

    expected = {None: asked({}), 97: asked({"size": "97"}), (131, 97): asked({"size": "131x97"})}
    assert not any(same(expected[one], expected[other]) for one, other in combinations(expected, 2))
    with Client(service.url, timeout=MINUTES) as client:
        for size, wanted in expected.items():
            answers = [client.classify(image, size=size), *client.classify([image], size=size)]
            assert all(same(scores(answer), wanted) for answer in (*answers, *anyio.run(ask, size)))
        with pytest.raises(RefusedError, match="224, 97, 131x97"):
            client.classify(image, size=64)


def test_answers_come_in_the_order_of_the_images(service: ServerProcess) -> None:
    images = [pictures()[number % 6] for number in range(20)]

    async def ask() -> list[Classification]:
        async with AsyncClient(service.url, timeout=MINUTES) as client:
            one = await client.classify(images[0])
            many = await client.classify(images)
            assert same(scores(one), scores(many[0]))
            return many

    with Client(service.url, timeout=MINUTES) as client:
        expected = client.classify(images)
    assert all(same(scores(a), scores(b)) for a, b in zip(anyio.run(ask), expected, strict=True))
    assert all(same(scores(expected[number]), scores(expected[number + 6])) for number in range(14))
    assert not same(scores(expected[0]), scores(expected[1]))


def test_what_the_service_refuses_is_an_error_with_its_words(service: ServerProcess) -> None:
    with Client(service.url, timeout=MINUTES) as client:
        with pytest.raises(RefusedError, match="image 2") as refused:
            client.classify([pictures(1)[0], pictures(1)[0][:300]])
        assert (refused.value.status, refused.value.code) == (400, "corrupt_image")
        assert len(refused.value.request_id) == 32
        with pytest.raises(RefusedError, match="There is no variant 'fast'"):
            client.classify(pictures(1)[0], variant="fast")
        with pytest.raises(RefusedError, match="top_k"):
            client.classify(pictures(1)[0], top_k=99)


def test_nobody_there_is_told_when_the_time_is_over() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with Client(url, timeout=0.5) as client, pytest.raises(NoAnswerError, match="ConnectError"):
            client.classify(b"any")


def test_a_restart_of_the_engine_process_is_no_error(service: ServerProcess) -> None:
    images = pictures()
    with Client(service.url, timeout=MINUTES) as client:
        expected = [scores(client.classify(image)) for image in images]
        over, errors, answered = threading.Event(), [], [0] * 4

        def ask(worker: int) -> None:
            while not over.is_set():
                number = answered[worker] % len(images)
                try:
                    assert same(scores(client.classify(images[number])), expected[number])
                except BaseException as error:
                    errors.append(error)
                    return
                answered[worker] += 1

        workers = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
        for worker in workers:
            worker.start()
        for _ in range(2):
            until(lambda: errors or min(answered) > 0)
            engine = children(service)["engine"]
            os.kill(engine, signal.SIGKILL)
            until(lambda engine=engine: replaced(service, "engine", engine)())
            seen = list(answered)
            until(lambda seen=seen: errors or all(now > then for now, then in zip(answered, seen, strict=True)))
        over.set()
        for worker in workers:
            worker.join(NEVER)
    assert errors == []


def test_the_example_labels_a_folder(service: ServerProcess, tmp_path: Path) -> None:
    document = (REPOSITORY / "docs" / "client.md").read_text()
    found = re.search(r"```python\n(.*?)```", document, re.DOTALL)
    assert found is not None
    (tmp_path / "label.py").write_text(found[1].replace("http://127.0.0.1:8000", service.url))
    for number, content in enumerate([*pictures(2), pictures(1)[0][:300]]):
        (tmp_path / f"{number}.jpg").write_bytes(content)
    ended = subprocess.run(
        [sys.executable, tmp_path / "label.py", tmp_path],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=NEVER,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    first, second, third = ended.stdout.splitlines()
    assert re.fullmatch(r"0\.jpg \w+ \d+\.\d%", first)
    assert re.fullmatch(r"1\.jpg \w+ \d+\.\d%", second)
    assert third.startswith("2.jpg File '2.jpg': The image is truncated")


def test_the_client_loads_no_engine_and_no_service() -> None:
    code = "import sys, tessera.client; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    ours = {name for name in told.stdout.split() if name.startswith("tessera.")}
    assert {name for name in ours if not name.startswith("tessera.client")} == set()
    assert not {"onnxruntime", "onnx", "numpy", "PIL", "pydantic"} & set(told.stdout.split())
