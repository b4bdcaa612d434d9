"""Asks a server as KServe's own clients do, over HTTP and gRPC; `tests/integration/test_kserve.py` runs it.

    python -m tests.kserve_client HOST:PORT HOST:GRPC_PORT MODEL SIZE PHOTO

Prints a line per request that was answered under the model's name: the datatype, how it was sent, the answer's shape.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig

WAIT = 400.0  # seconds


def inputs(size: int, photo: bytes) -> Iterator[tuple[InferInput, bool]]:
    """One image in every datatype, as JSON (in gRPC: typed contents) and as binary data."""
    for binary in (False, True):
        for datatype, array in (
            ("UINT8", np.zeros((1, size, size, 3), np.uint8)),
            ("FP32", np.zeros((1, 3, size, size), np.float32)),
            ("BYTES", np.array([photo], dtype=object)),
        ):
            if datatype == "BYTES" and not binary:
                continue  # its JSON has text, which a photo is not
            made = InferInput("input", list(array.shape), datatype)
            made.set_data_from_numpy(array, binary_data=binary)
            yield made, binary


def tell(protocol: str, model: str, sent: InferInput, binary: bool, answer: InferResponse) -> None:
    """Print what came of a request."""
    assert answer.model_name == model, answer.model_name
    way = "binary" if binary else "plain"
    print(protocol, sent.datatype, way, "x".join(map(str, answer.outputs[0].as_numpy().shape)))


async def over_http(base: str, model: str, size: int, photo: bytes) -> None:
    """Probe and infer with the REST client."""
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=WAIT))
    assert await client.is_server_live(base)
    assert await client.is_server_ready(base)
    assert await client.is_model_ready(base, model)
    for sent, binary in inputs(size, photo):
        tell("http", model, sent, binary, await client.infer(base, InferRequest(model, [sent]), model_name=model))
    await client.close()


async def over_grpc(address: str, model: str, size: int, photo: bytes) -> None:
    """The same with the gRPC client."""
    client = InferenceGRPCClient(url=address, timeout=WAIT)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready(model)
    for sent, binary in inputs(size, photo):
        tell("grpc", model, sent, binary, await client.infer(InferRequest(model, [sent])))
    await client.close()


async def main(http: str, grpc: str, model: str, size: str, photo: str) -> None:
    """Ask over both."""
    data = Path(photo).read_bytes()
    await over_http(f"http://{http}", model, int(size), data)
    await over_grpc(grpc, model, int(size), data)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
