"""Variants are unloaded and loaded over both transports, while requests for them are in flight."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from tests.holding import Holding
from tests.integration.oip.grpc_clients import FILES, MODEL, listening_at, tensor
from tests.servers import ServerProcess
from tests.waiting import NEVER, until

TOKEN = "a-token-for-this-test"
NAME = f"{MODEL}-baseline"


@pytest.fixture(scope="module")
def server(holding: Holding) -> Iterator[ServerProcess]:
    """A server whose engine waits when it is told to."""
    with holding.server(grpc_port=0, admin=True, admin_token=TOKEN) as running:
        yield running
        assert running.stop() == 0, running.describe()


def connect(server: ServerProcess, transport: str) -> AbstractContextManager[Any]:
    """A client. Those over HTTP serve one thread each (gevent)."""
    if transport == "http":
        return triton_http.InferenceServerClient(server.url.removeprefix("http://"))
    return triton.InferenceServerClient(listening_at(server))


def bearer(transport: str) -> dict[str, str]:
    return {"Authorization" if transport == "http" else "authorization": f"Bearer {TOKEN}"}


def infer(server: ServerProcess) -> np.ndarray:
    with triton.InferenceServerClient(listening_at(server)) as client:
        return client.infer(NAME, [tensor(FILES)]).as_numpy("output")


def unload(server: ServerProcess, transport: str) -> None:
    with connect(server, transport) as client:
        client.unload_model(NAME, headers=bearer(transport))


def state(client: Any, name: str) -> set[str]:
    index = client.get_model_repository_index()
    entries = index if isinstance(index, list) else [{"name": m.name, "state": m.state} for m in index.models]
    return {entry["state"] for entry in entries if entry["name"] == name}


def images_wait(server: ServerProcess) -> bool:
    with server.client() as client:
        metrics = client.get("/metrics").text
    return re.search(r"^tessera_queue_depth_images [1-9]", metrics, re.MULTILINE) is not None


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_variant_is_unloaded_without_failing_a_request_and_loaded_again(
    transport: str, server: ServerProcess, holding: Holding
) -> None:
    with connect(server, transport) as admin, connect(server, "grpc") as client, ThreadPoolExecutor(2) as others:
        with pytest.raises(InferenceServerException, match="token"):
            admin.unload_model(NAME)
        with holding():
            in_flight = others.submit(infer, server)
            until(lambda: images_wait(server))
            unloading = others.submit(unload, server, transport)
            until(lambda: state(admin, NAME) == {"UNAVAILABLE"})
            with pytest.raises(InferenceServerException, match="unloaded") as caught:
                client.infer(MODEL, [tensor(FILES)], model_version="1")
            assert caught.value.status() == "StatusCode.UNAVAILABLE"
            assert not unloading.done(), "it waits for what was admitted"
        assert in_flight.result(timeout=NEVER).shape == (2, 10)
        unloading.result(timeout=NEVER)
        assert state(admin, MODEL) == {"READY", "UNAVAILABLE"}
        assert not admin.is_model_ready(NAME)
        assert not admin.is_model_ready(MODEL, "1")
        assert admin.is_model_ready(MODEL)
        assert client.infer(MODEL, [tensor(FILES)], model_version="2").as_numpy("output").shape == (2, 10)
        admin.load_model(NAME, headers=bearer(transport))
        assert state(admin, MODEL) == {"READY"}
        assert client.infer(NAME, [tensor(FILES)]).as_numpy("output").shape == (2, 10)
