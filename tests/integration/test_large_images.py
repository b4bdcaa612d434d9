"""Images that take long and much memory: they wait for each other, and nobody waits for them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests import imagefiles
from tests.processes import children
from tests.servers import ServerProcess
from tests.waiting import until

pytestmark = pytest.mark.alone

PATH = "/v1/classify"
MAX_PIXELS = 16 * 1024 * 1024
MEMORY = 8 * MAX_PIXELS + 32 * 1024 * 1024
SLACK = 64 * 1024 * 1024  # small images, buffers, bodies, and what the allocator keeps
CLIENTS = 4


def progressive(width: int = 4096, height: int = 4096) -> bytes:
    """A third of a megabyte whose ten scans hold six bytes a pixel, at whatever fraction they are decoded."""
    picture = Image.new("RGB", (width, height), (200, 100, 50))
    return imagefiles.encode(picture, "JPEG", progressive=True, subsampling=0)


class Memory:
    """What the processes that decode hold together, looked at until told to stop; the engine's comes from computing."""

    def __init__(self, server: ServerProcess) -> None:
        found = {"service": server.process.pid, **children(server)}
        self._pids = [pid for role, pid in found.items() if role not in ("engine", "spare")]
        self.first = self.most = self._now()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Returns by how many bytes it has grown at most."""
        self._stopped.set()
        self._thread.join()
        return self.most - self.first

    def _look(self) -> None:
        while not self._stopped.wait(0.005):
            self.most = max(self.most, self._now())

    def _now(self) -> int:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids)
        return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("frontends", [0, 2])
def test_large_images_hold_a_bounded_memory_together_and_nobody_waits_for_them(frontends: int) -> None:
    large, small = progressive(), imagefiles.jpeg()
    with ServerProcess(frontends=frontends, max_pixels=MAX_PIXELS, request_timeout_ms=500_000) as server:

        def send(data: bytes) -> int:
            with server.client() as client:  # a connection each, so that every frontend gets some
                return client.post(PATH, content=data, timeout=500).status_code

        assert {send(small) for _ in range(20)} == {200}
        memory = Memory(server)
        with ThreadPoolExecutor(CLIENTS) as clients:
            attack = [clients.submit(send, large) for _ in range(CLIENTS)]
            until(lambda: memory.most > memory.first + MEMORY // 4)  # one is being decoded
            assert {send(small) for _ in range(5)} == {200}
            assert not all(answer.done() for answer in attack), "the small ones did not wait for the large ones"
            assert {answer.result() for answer in attack} == {200}
        assert 0.6 * MEMORY < memory.stop() < MEMORY + SLACK
        assert server.stop() == 0, server.describe()


def test_an_image_that_would_take_more_than_all_of_the_memory_is_refused_by_name() -> None:
    webp = imagefiles.encode(Image.new("RGB", (4096, 4096), (200, 100, 50)), "WEBP", lossless=True, method=0)
    with ServerProcess(max_pixels=MAX_PIXELS) as server:
        with server.client() as client:
            answer = client.post(PATH, content=webp)
            assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
            assert "MB of memory" in answer.json()["error"]
            assert client.post(PATH, content=imagefiles.jpeg()).status_code == 200
        assert server.stop() == 0, server.describe()
