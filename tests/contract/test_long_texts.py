"""What a client writes is quoted in a few words, in answers and in the log, however long it is."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from tests import imagefiles
from tests.servers import ServerProcess

LONG = "a" * 60_000
JPEG = imagefiles.jpeg()
INFER = "/v2/models/resnet50-imagenette/infer"


def tensor(**keys: object) -> bytes:
    return json.dumps({"inputs": [{"name": "input", "datatype": "BYTES", "shape": [1], "data": [""], **keys}]}).encode()


SENT: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "a path": lambda client: client.get(f"/{LONG}"),
    "a model": lambda client: client.get(f"/v2/models/{LONG}"),
    "a model that is asked": lambda client: client.post(f"/v2/models/{LONG}/infer", content=b"{}"),
    "a version": lambda client: client.get(f"/v2/models/resnet50-imagenette/versions/{LONG}"),
    "a variant": lambda client: client.post("/v1/classify", content=JPEG, headers={"X-Model-Variant": LONG}),
    "an admin's variant": lambda client: client.post(f"/v1/admin/variants/{LONG}/load"),
    "a priority": lambda client: client.post("/v1/classify", content=JPEG, headers={"X-Priority": LONG}),
    "an encoding": lambda client: client.post("/v1/classify", content=JPEG, headers={"Content-Encoding": LONG}),
    "an encoding of tensors": lambda client: client.post(INFER, content=b"{}", headers={"Content-Encoding": LONG}),
    "a length": lambda client: client.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": LONG}),
    "a query": lambda client: client.get(f"/v1/models?{LONG}"),
    "a field": lambda client: client.post("/v1/classify", files=[(LONG[:4000], b"x")]),
    "a file": lambda client: client.post("/v1/classify", files=[("file", (LONG[:4000], b"x"))]),
    "a boundary": lambda client: client.post(
        "/v1/classify", content=b"x", headers={"Content-Type": f"multipart/form-data; boundary={LONG}"}
    ),
    "a part's header": lambda client: client.post(
        "/v1/classify",
        content=b"--b\r\nA B" + LONG.encode(),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    ),
    "an input": lambda client: client.post(INFER, content=tensor(name=LONG)),
    "a datatype": lambda client: client.post(INFER, content=tensor(datatype=LONG)),
    "a shape": lambda client: client.post(INFER, content=tensor(shape=[LONG])),
    "a parameter": lambda client: client.post(INFER, content=tensor(parameters={LONG: []})),
    "a reserved parameter": lambda client: client.post(INFER, content=tensor(parameters={f"triton_{LONG}": 1})),
    "an output": lambda client: client.post(
        INFER, content=tensor()[:-1] + f',"outputs":[{{"name":"{LONG}"}}]}}'.encode()
    ),
    "no JSON": lambda client: client.post(INFER, content=LONG.encode()),
}


@pytest.fixture(scope="module")
def server() -> ServerProcess:
    with ServerProcess(log_level="debug", otlp_endpoint="http://127.0.0.1:9/v1/traces") as running:
        yield running


@pytest.mark.parametrize("case", SENT)
def test_a_long_text_is_cut_in_answer_and_log(case: str, server: ServerProcess) -> None:
    before = len(server.log)
    with server.client() as client:
        answer = SENT[case](client)
        client.get("/healthz")
    assert 400 <= answer.status_code < 500
    assert len(answer.content) < 700, answer.text
    assert len(answer.json()["error"]) < 400
    assert max((len(line) for line in server.log[before:]), default=0) < 1000


def test_a_long_trace_state_costs_no_line(server: ServerProcess) -> None:
    before = len(server.log)
    context = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    with server.client() as client:
        for state in ("a" * 60_000, "a" + " " * 60_000 + "b", "a=b," * 10_000):
            assert client.get("/v1/models", headers={**context, "tracestate": state}).status_code == 200
    assert max((len(line) for line in server.log[before:]), default=0) < 1000
