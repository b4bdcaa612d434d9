"""What a client sends costs in proportion to its bytes at most, in every parser."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from fastapi import APIRouter, Request

from tessera.app.api.query import check_query
from tessera.app.errors import RequestError
from tessera.app.limits.admin import AdminGate
from tessera.app.limits.clients import client_key
from tessera.app.observability.metrics import Metrics
from tessera.app.oip.grpc.messages import parse_infer
from tessera.app.oip.grpc.received import Received
from tessera.app.oip.grpc.schema import Schema
from tessera.app.oip.wire.compression import choose_encoding, unpacked
from tessera.app.oip.wire.interface import Interface
from tessera.app.oip.wire.repository import parse_index_request, parse_repository_parameters
from tessera.app.oip.wire.request import parse_raw_request, parse_request
from tessera.app.protocol.classify import resolve_top_k
from tessera.app.protocol.multipart import parse_multipart
from tessera.app.protocol.request_id import request_id_for
from tessera.app.protocol.urgency import parse_priority, parse_timeout
from tessera.app.routing.split import experiment_key
from tessera.app.routing.variants import choose_variant
from tessera.app.settings import Settings
from tests.steps import steps

N = 4000
INTERFACE = Interface("input", "output", (32, 32), ["a", "b"], max_images=4096)
INFERENCE = Schema("inference.proto")
METRICS = Metrics()
ENTRY = {"name": "input", "datatype": "BYTES", "shape": [1], "data": ["QQ=="]}
TYPE = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'


def document(inputs: object = (ENTRY,), **keys: object) -> Callable[[], object]:
    body = json.dumps({"inputs": inputs, **keys}).encode()
    return lambda: parse_request(body, None, INTERFACE)


def entry(**keys: object) -> Callable[[], object]:
    return document([{**ENTRY, **keys}])


def text(body: bytes) -> Callable[[], object]:
    return lambda: parse_request(body, None, INTERFACE)


def binary(n: int, declared: object) -> Callable[[], object]:
    made = {"name": "input", "datatype": "BYTES", "shape": [n], "parameters": {"binary_data_size": declared}}
    header = json.dumps({"inputs": [made]}).encode()
    return lambda: parse_request(header + bytes(4 * n), len(header), INTERFACE)


def numbers(n: int, **layout: object) -> Callable[[], object]:
    values = np.zeros((n // 100, 32, 32, 3), int)
    shape = list(values.shape)
    return entry(datatype="UINT8", shape=shape, data=(values if layout else values.ravel()).tolist())


def message(data: bytes) -> Callable[[], object]:
    return lambda: parse_infer(Received(INFERENCE["ModelInferRequest"], data).read(), INTERFACE)


def crowded(n: int, what: str) -> Callable[[], object]:
    made = INFERENCE["ModelInferRequest"]()
    sent = made.inputs.add(name="input", datatype="BYTES", shape=[1])
    if what == "outputs":
        for _ in range(n):
            made.outputs.add(name="output")
    elif what == "inputs":
        for _ in range(n):
            made.inputs.add(name="input")
    elif what == "parameters":
        for index in range(n):
            made.parameters[f"p{index}"].bool_param = True
    elif what == "elements":
        sent.shape[:] = [n // 2]
        sent.contents.bytes_contents.extend([b""] * (n // 2))
    else:
        sent.datatype = "UINT8"
        sent.shape[:] = [n // 100, 32, 32, 3]
        sent.contents.uint_contents.extend([1] * (n // 100 * 3072))
    return message(made.SerializeToString())


def form(body: bytes, content_type: str = TYPE) -> Callable[[], object]:
    return lambda: parse_multipart(content_type, body, max_files=64)


def query(sent: str) -> Callable[[], object]:
    router = APIRouter()
    router.add_api_route("/", lambda: None)
    scope = {"type": "http", "query_string": sent.encode(), "headers": [], "route": router.routes[0]}
    return lambda: check_query(Request(scope))


def admin(sent: str) -> Callable[[], object]:
    gate = AdminGate(Settings(admin=True, admin_token="x" * 20))
    return lambda: gate.check(sent, "127.0.0.1")


PARSERS: dict[str, Callable[[int], Callable[[], object]]] = {
    "outputs": lambda n: document(outputs=[{"name": "output"}] * n),
    "different outputs": lambda n: document(outputs=[{"name": f"{index}"} for index in range(n)]),
    "inputs": lambda n: document([ENTRY] * n),
    "parameters": lambda n: document(parameters={f"{index}": 1 for index in range(n)}),
    "an input's parameters": lambda n: entry(parameters={f"{index}": 1 for index in range(n)}),
    "keys that nobody knows": lambda n: document(**{f"{index}": 1 for index in range(n)}),
    "an id": lambda n: document(id="x" * n),
    "a name": lambda n: entry(name="x" * n),
    "a datatype": lambda n: entry(datatype="x" * n),
    "a shape": lambda n: entry(shape=[1] * n),
    "elements": lambda n: entry(shape=[n // 4], data=["QQ=="] * (n // 4)),
    "elements of a column": lambda n: entry(shape=[n // 4, 1], data=[["QQ=="]] * (n // 4)),
    "too many elements": lambda n: entry(data=[""] * n),
    "numbers": numbers,
    "nested numbers": lambda n: numbers(n, nested=True),
    "numbers and spaces": lambda n: text(json.dumps({"inputs": [{**ENTRY, "data": [0] * n}]}, indent=9).encode()),
    "depth": lambda n: text(b'{"inputs":' + b"[" * n),
    "depth of data": lambda n: text(b'{"inputs":[{"name":"input","data":' + b"[" * n),
    "commas": lambda n: text(b'{"inputs":[' + b"," * n),
    "spaces": lambda n: text(b" " * n),
    "digits": lambda n: text(b"1" * n),
    "binary elements": lambda n: binary(n // 4, n),
    "too few binary elements": lambda n: binary(n // 4, 4 * (n // 4)),
    "sizes": lambda n: binary(n // 4, ",".join(["4"] * (n // 4))),
    "a raw body": lambda n: lambda: parse_raw_request(bytes(n), INTERFACE),
    "a gzip body": lambda n: lambda: list(unpacked(gzip.compress(bytes(n * 1000)), "gzip", limit=2**30)),
    "a gzip body that does not shrink": lambda n: (
        lambda: list(unpacked(gzip.compress(np.random.default_rng(1).bytes(n * 100)), "gzip", limit=2**30))
    ),
    "a repository index": lambda n: lambda: parse_index_request(json.dumps({"x": [{}] * n}).encode()),
    "a repository load": lambda n: lambda: parse_repository_parameters(b'{"parameters":' + b"[" * n),
    **{
        f"a message's {what}": lambda n, what=what: crowded(n, what)  # type: ignore[misc]
        for what in ("outputs", "inputs", "parameters", "elements", "numbers")
    },
    "fields that nobody knows": lambda n: message(b"\xf8\x07\x00" * n),
    "a message of nonsense": lambda n: message(b"\xff" * n),
    "a form's boundaries": lambda n: form(PART + b"\r\n--bx" * n),
    "a form's parts": lambda n: form((PART + b"x" * n + b"\r\n") * 32 + b"--b--\r\n"),
    "a form's preamble": lambda n: form(b"--bx\r\n" * n + PART + b"x\r\n--b--\r\n"),
    "a form's preamble without lines": lambda n: form(b"-" * n),
    "a form's epilogue": lambda n: form(PART + b"x\r\n--b--\r\n" + b"\r\n-" * n),
    "a part's headers": lambda n: form(b"--b\r\n" + b"A: b\r\n" * n + b"\r\nx\r\n--b--\r\n"),
    "a part's header": lambda n: form(b"--b\r\nContent-Disposition: " + b"x" * n + b"\r\n\r\nx\r\n--b--\r\n"),
    "a part's quotes": lambda n: form(b'--b\r\nContent-Disposition: form-data; name="' + b'";"' * n + b'"\r\n\r\n'),
    "a part's semicolons": lambda n: form(b'--b\r\nContent-Disposition: form-data; name="' + b";" * n + b'"\r\n\r\n'),
    "a form's content type": lambda n: form(PART, f'multipart/form-data; a="{";" * n}"; boundary=b'),
    "a form's options": lambda n: form(PART, f"multipart/form-data{'; a=b' * n}; boundary=b"),
    "an Accept-Encoding": lambda n: lambda: choose_encoding("gzip;q=0.1," * n, 4096),
    "an Accept": lambda n: lambda: METRICS.render("text/plain;q=0.1," * n),
    "query parameters": lambda n: query("a=b&" * n),
    "a query parameter": lambda n: query("a" * n),
    "a query of separators": lambda n: query("&" * n),
    "top_k": lambda n: lambda: resolve_top_k("1" * n, 1000),
    "variants": lambda n: lambda: choose_variant([f"{index}" for index in range(n)], ["a"], "a"),
    "a variant": lambda n: lambda: choose_variant(["x" * n], ["a"], "a"),
    "experiment keys": lambda n: lambda: experiment_key([f"{index}" for index in range(n)]),
    "a time limit": lambda n: lambda: parse_timeout(["0" * n + "1" * n], 30_000),
    "a priority": lambda n: lambda: parse_priority(["x" * n]),
    "a request id": lambda n: lambda: request_id_for("x" * n + " "),
    "a token": lambda n: admin("Bearer " + "x" * n),
    "an address": lambda n: lambda: client_key("1:" * n),
}


@pytest.mark.parametrize("case", PARSERS)
def test_twice_as_much_costs_twice_as_much_at_most(case: str) -> None:
    once, twice = (counted(PARSERS[case](size)) for size in (N, 2 * N))
    assert twice <= 2.2 * once + 2000


def counted(call: Callable[[], object]) -> int:
    def tolerant() -> None:
        with contextlib.suppress(RequestError):
            call()

    tolerant()  # what is made once, such as the tables of a regular expression
    return steps(tolerant)


def by_methods(n: int) -> None:
    names = [f"{index}" for index in range(n)]
    for name in names:
        names.count(name)


def by_instructions(n: int) -> None:
    for _ in range(n):
        for _ in range(n):
            pass


@pytest.mark.parametrize("square", [by_methods, by_instructions])
def test_the_measure_sees_squares_in_python_and_behind_methods(square: Callable[[int], None]) -> None:
    once, twice = (steps(partial(square, size)) for size in (200, 400))
    assert twice > 3 * once
