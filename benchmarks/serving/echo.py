"""The least that HTTP costs with this client: reads a body and answers with a constant of an answer's size."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

_IMAGE = {
    "predictions": [{"rank": 1, "index": 0, "label": "a label of some length", "probability": 0.5}] * 5,
    "timing": {"decode_ms": 0.0, "queue_ms": 0.0, "compute_ms": 0.0, "batch_size": 1},
}
_BODY = json.dumps({"model": "echo", "variant": "echo", "results": [_IMAGE]}).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


class Echo(asyncio.Protocol):
    """Takes requests with a Content-Length from our client and nobody else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = int(self._received[:end].rpartition(b"Content-Length: ")[2].split(b"\r\n")[0])
        if len(self._received) >= end + 4 + length:
            self._received.clear()
            self._transport.write(_ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
