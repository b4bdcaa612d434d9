"""Clients that know the right answers, and a count of everything that happened to them."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from tests.imagefiles import encode

VARIANTS = ("baseline", "optimised")
HANG_SECONDS = 300.0  # longer than any timeout of the service: no answer by then is a hang
_FINE = ("right", "refused", "lost", "read", "turned down", "left", "dawdled")  # whatever else happens is a problem
TOLERANCE = 1e-3  # kernels sum in another order at another batch size; other images' answers differ by far more


def pictures(count: int = 6) -> list[bytes]:
    """Different pictures, whose answers differ."""
    generator = np.random.default_rng(7)
    made = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (7, 7, 3), np.uint8)
        made.append(encode(Image.fromarray(coarse).resize((256, 224), Image.Resampling.BICUBIC), "JPEG", quality=90))
    return made


def probabilities(answer: bytes) -> list[dict[int, float]]:
    """Per image of a classify answer: class index to probability."""
    results = json.loads(answer)["results"]
    return [{entry["index"]: entry["probability"] for entry in result["predictions"]} for result in results]


def same(got: dict[int, float], expected: dict[int, float]) -> bool:
    return got.keys() == expected.keys() and all(abs(got[index] - expected[index]) < TOLERANCE for index in got)


@dataclass
class Report:
    """What happened: each request counts once in `seen`."""

    seen: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def note(self, what: str, detail: str = "") -> None:
        self.seen[what] += 1
        if what not in _FINE:
            self.problems.append(f"{what}: {detail}")


class Clients:
    """Threads that ask without pause, each on a connection of its own, and compare every answer.

    Args:
        url: The service.
        count: How many.
        seed: Chooses what each asks.
    """

    def __init__(self, url: str, count: int = 8, seed: int = 0) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._address = (address.hostname, address.port)
        self._pictures = pictures()
        self.report = Report()
        self._expected = self._learn()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(random.Random(seed + n),)) for n in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _learn(self) -> dict[str, list[dict[int, float]]]:
        """The right answers, from an undisturbed service; they must tell the pictures apart."""
        expected = {}
        for variant in VARIANTS:
            answers = []
            for picture in self._pictures:
                with closing(self._connect()) as connection:
                    status, _, body = self._request(connection, [picture], variant)
                assert status == 200, body
                answers += probabilities(body)
            expected[variant] = answers
            for first in range(len(answers)):
                assert not any(same(answers[first], other) for other in answers[first + 1 :])
        return expected

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._address, timeout=HANG_SECONDS)

    def _ask_on(self, chance: random.Random) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            try:
                answered = self._ask(connection, chance)
            except TimeoutError:
                self.report.note("hang")
            except (OSError, http.client.HTTPException):
                self.report.note("lost")  # whoever asked kills frontends knows how many of these are due
                time.sleep(0.02)
            else:
                if not answered:
                    time.sleep(0.05)
                continue
            connection.close()
            connection = self._connect()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        """One request; returns whether it was answered rather than refused.

        Raises:
            OSError, http.client.HTTPException: There was no whole answer.
        """
        chosen = [chance.randrange(len(self._pictures)) for _ in range(chance.choice((1, 1, 1, 3)))]
        variant = chance.choice(("optimised", "optimised", "baseline"))
        status, headers, body = self._request(connection, [self._pictures[n] for n in chosen], variant)
        self._judge(variant, chosen, status, headers, body)
        return status == 200

    def _judge(
        self, variant: str, chosen: list[int], status: int, headers: http.client.HTTPMessage, body: bytes
    ) -> None:
        if status == 200:
            expected = [self._expected[variant][number] for number in chosen]
            got = probabilities(body)
            right = len(got) == len(expected) and all(map(same, got, expected))
            self.report.note("right" if right else "wrong", f"{variant} {chosen}: {got} instead of {expected}")
        elif status == 503 and int(headers["Retry-After"] or 0) >= 1 and json.loads(body)["code"]:
            self.report.note("refused")
        else:
            self.report.note("unclean", f"{status} {dict(headers)} {body[:300]!r}")

    def _request(
        self, connection: http.client.HTTPConnection, files: list[bytes], variant: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"X-Model-Variant": variant}
        body = files[0]
        if len(files) > 1:
            edge = "chaos"
            headers["Content-Type"] = f"multipart/form-data; boundary={edge}"
            head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'.encode()
            body = b"".join(head + file + b"\r\n" for file in files) + f"--{edge}--\r\n".encode()
        connection.request("POST", "/v1/classify", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
