"""What calls over gRPC share with requests over HTTP: the budget of upload bytes, and traces."""

from __future__ import annotations

import queue
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests import imagefiles
from tests.collector import Collector
from tests.integration.oip.grpc_clients import listening_at, tensor
from tests.servers import ServerProcess
from tests.small_model import small_folder
from tests.waiting import NEVER, until


@pytest.fixture(scope="module")
def limited(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with room for few bytes, which is traced."""
    with ServerProcess(
        model_path=small_folder(tmp_path_factory.mktemp("models") / "small"),
        grpc_port=0,
        otlp_endpoint=collector.url,
        max_body_bytes=100_000,
        max_upload_bytes=150_000,
        threads=1,
    ) as running:
        yield running
        assert running.stop() == 0, running.describe()


def test_messages_share_the_budget_of_http_bodies(limited: ServerProcess) -> None:
    padded = np.array([imagefiles.jpeg(64, 48) + bytes(80_000)], dtype=object)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(listening_at(limited)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        uploading = _begin_upload(limited)
        for _ in range(50):
            if _refused(client, padded) is not None:
                break
            uploading.close()  # the call was first, and the upload was refused perhaps
            uploading = _begin_upload(limited)
        counted = _rejections(limited)
        assert _refused(client, padded) == "StatusCode.UNAVAILABLE"
        client.async_stream_infer("small", [tensor(padded)])
        assert "uploads in progress hold 85000 of 150000 bytes" in str(answers.get(timeout=NEVER)[1])
        assert _rejections(limited) == counted + 2
        uploading.close()
        until(lambda: _refused(client, padded) is None)
        client.async_stream_infer("small", [tensor(padded)])
        assert answers.get(timeout=NEVER)[1] is None, "the stream outlives it"
        for _ in range(3):
            assert _refused(client, padded) is None, "what was held is free again"


def _rejections(server: ServerProcess) -> float:
    with server.client() as client:
        text = client.get("/metrics").text
    found = re.findall(r'^tessera_rejections_total\{reason="too_many_uploads"\} (\S+)', text, re.MULTILINE)
    return sum(map(float, found))


def _begin_upload(server: ServerProcess) -> socket.socket:
    """Send most of a body, and give the server a moment to read it."""
    address = httpx.URL(server.url)
    connection = socket.create_connection((address.host, address.port), timeout=30)
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
    connection.sendall(head + bytes(85_000))
    time.sleep(0.1)
    return connection


def _refused(client: triton.InferenceServerClient, values: np.ndarray) -> str | None:
    try:
        client.infer("small", [tensor(values)])
    except InferenceServerException as error:
        return str(error.status())
    return None


def test_a_call_is_traced_with_its_stages_under_the_callers_span(limited: ServerProcess, collector: Collector) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "traced"}
    small = np.array([imagefiles.jpeg(64, 48)], dtype=object)
    with triton.InferenceServerClient(listening_at(limited)) as client:
        client.infer("small", [tensor(small)], headers=headers)
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put(error), headers=headers)
        client.async_stream_infer("other", [tensor(small)])
        assert "other" in str(answers.get(timeout=NEVER))
        client.is_server_ready(headers=headers)
    until(lambda: len(collector.of_trace(trace)) == 6)
    spans = collector.of_trace(trace)
    failed = spans.pop("inference.GRPCInferenceService/ModelStreamInfer")
    root = spans.pop("inference.GRPCInferenceService/ModelInfer")
    assert root.parent_span_id.hex() == failed.parent_span_id.hex() == parent
    attributes = {entry.key: entry.value for entry in root.attributes}
    assert attributes["tessera.request_id"].string_value == "traced"
    assert (attributes["rpc.system"].string_value, attributes["rpc.method"].string_value) == ("grpc", "ModelInfer")
    assert attributes["rpc.grpc.status_code"].int_value == 0
    codes = {entry.key: entry.value.int_value for entry in failed.attributes}
    assert codes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert set(spans) == {"decode", "queue", "compute", "postprocess"}
    assert all(span.parent_span_id == root.span_id for span in spans.values())
    until(lambda: any("ModelInfer" in line and f"trace_id={trace}" in line for line in limited.log))
