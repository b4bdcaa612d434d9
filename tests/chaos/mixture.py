"""Clients as a public service has them: photos above all, and everything else that comes in beside them."""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from PIL import Image

from tests.chaos.clients import HANG_SECONDS, VARIANTS, Clients, same
from tests.imagefiles import encode

_PAGES = ("/metrics", "/v1/experiments", "/v1/models", "/healthz", "/readyz", "/v2/models/small/stats", "/openapi.json")
# Random weights that tell the pictures apart.
SEED = 1
CONNECTIONS = 40
_MOST_DAWDLERS = 4 * CONNECTIONS
_HALF_A_BODY = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
_REFUSED = {400, 404, 405, 413, 415, 422}
_IMAGE = {"name": "input", "shape": [1], "datatype": "BYTES", "data": [""]}
# Small requests that say much: names that were compared with each other, elements that became objects.
_BURYING = [
    json.dumps({"inputs": [_IMAGE], "outputs": [{"name": str(number)} for number in range(20_000)]}).encode(),
    json.dumps({"inputs": [{**_IMAGE, "shape": [200_000], "data": [""] * 200_000}]}).encode(),
]
# Small files of many pixels: several passes over them, or samples of two bytes.
_SWELLING = [
    encode(Image.new("RGB", (2400, 2400)), "JPEG", progressive=True),
    encode(Image.fromarray(np.zeros((2400, 2400), np.uint16)), "PNG"),
]


class Mixture(Clients):
    """Photos, tensors of the Open Inference Protocol, broken files, wrong paths, scrapes, clients that leave or attack.

    The service must serve the model of `tests.small_model` with seed `SEED`. With `CONNECTIONS` as `max_connections`,
    the clients that dawdle, all from another address, take every connection of a process.
    """

    def __init__(self, url: str, count: int = 8, seed: int = 0) -> None:
        self._dawdlers: deque[socket.socket] = deque()
        super().__init__(url, count, seed)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for dawdler in self._dawdlers:
            dawdler.close()

    def _ask(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        if chance.random() < 0.7:
            return super()._ask(connection, chance)
        kinds: list[Callable[[http.client.HTTPConnection, random.Random], bool]]
        kinds = [self._infer, self._infer, self._read, self._break, self._miss, self._leave, self._dawdle]
        kinds += [self._bury, self._swell]
        return chance.choice(kinds)(connection, chance)

    def _infer(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        """A JPEG in a BYTES tensor, by the binary extension; answered with the logits of all classes as JSON."""
        number, variant = chance.randrange(len(self._pictures)), chance.choice(VARIANTS)
        picture = self._pictures[number]
        tensor = struct.pack("<I", len(picture)) + picture
        size = {"binary_data_size": len(tensor)}
        inputs = [{"name": "input", "shape": [1], "datatype": "BYTES", "parameters": size}]
        head = json.dumps({"inputs": inputs, "outputs": [{"name": "output"}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "X-Model-Variant": variant}
        status, answer_headers, body = self._send(connection, "POST", "/v2/models/small/infer", head + tensor, headers)
        if status != 200:
            self._judge(variant, [number], status, answer_headers, body)
            return False
        logits = np.array(json.loads(body)["outputs"][0]["data"])
        odds = np.exp(logits - logits.max())
        got = dict(enumerate((odds / odds.sum()).tolist()))
        right = same(got, self._expected[variant][number])
        self.report.note("right" if right else "wrong", f"{variant} {number}: {got}")
        return True

    def _read(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        page = chance.choice(_PAGES)
        status, _, body = self._send(connection, "GET", page)
        self.report.note("read" if status == 200 and body else "unread", f"{page} {status} {body[:300]!r}")
        return True

    def _break(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        whole = bytearray(chance.choice(self._pictures))
        del whole[chance.randrange(2, len(whole) // 4) :]
        return self._refused(connection, "/v1/classify", bytes(whole))

    def _miss(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        path = chance.choice(("/v1/klassify", "/v2/models/none/infer", "/v1/models/none", "/" + "x" * 500))
        return self._refused(connection, path, b"{}")

    def _refused(self, connection: http.client.HTTPConnection, path: str, body: bytes) -> bool:
        status, headers, answer = self._send(connection, "POST", path, body)
        if status == 503:
            self._judge("any", [], status, headers, answer)
            return False
        self.report.note("turned down" if status in _REFUSED else "unclean", f"{path} {status} {answer[:300]!r}")
        return True

    def _bury(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        return self._refused(connection, "/v2/models/small/infer", chance.choice(_BURYING))

    def _swell(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        status, headers, answer = self._send(connection, "POST", "/v1/classify", chance.choice(_SWELLING))
        if status != 200:
            self._judge("any", [], status, headers, answer)
            return False
        self.report.note("read")
        return True

    def _leave(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        """Half a request, or a whole one whose answer nobody waits for."""
        leaving = self._connect()
        picture = self._pictures[0]
        leaving.putrequest("POST", "/v1/classify")
        leaving.putheader("Content-Length", str(len(picture)))
        leaving.endheaders(picture[: chance.choice((0, 1000, len(picture)))])
        leaving.close()
        self.report.note("left")
        return True

    def _dawdle(self, connection: http.client.HTTPConnection, chance: random.Random) -> bool:
        """Half a head, half a body or nothing on some connections, and a byte more on those that have been open."""
        for dawdler in list(self._dawdlers):
            with suppress(OSError):  # it has been cut off, or another thread has closed it
                dawdler.send(b"x")
        for _ in range(10):
            dawdler = socket.create_connection(self._address, HANG_SECONDS, source_address=("127.0.0.2", 0))
            dawdler.sendall(chance.choice((b"", b"GET /healthz HTTP/1.1\r\nX-Slow: ", _HALF_A_BODY)))
            dawdler.setblocking(False)
            self._dawdlers.append(dawdler)
        while len(self._dawdlers) > _MOST_DAWDLERS:
            self._dawdlers.popleft().close()
        self.report.note("dawdled")
        return True

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
