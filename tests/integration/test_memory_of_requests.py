"""No request adds more to memory than four times its body, or 64 MB, beyond the rows of its images."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import grpc
import numpy as np
import pytest

from tessera.app.oip.grpc.schema import Schema
from tests.memory import growth
from tests.processes import children
from tests.servers import ServerProcess
from tests.small_model import small_folder

BODY = 16 * 1024 * 1024 - 4096  # nearly the largest that is taken
PICTURE = 224 * 224 * 3
INFERENCE = Schema("inference.proto")
PATH = "/v2/models/small/infer"


class Sent(NamedTuple):
    """A request.

    Attributes:
        body: Unpacked.
        headers: Of HTTP.
        path: Of HTTP.
        rows: Images that it is answered for, of four bytes a value; 0 where it is refused.
    """

    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    path: str = PATH
    rows: int = 0


def filled(before: bytes, unit: bytes, after: bytes, size: int = BODY) -> bytes:
    """As many units, with a comma between, as there is room for."""
    return before + b",".join([unit] * ((size - len(before) - len(after)) // (len(unit) + 1))) + after


def infer(datatype: str, shape: str, unit: bytes) -> Sent:
    start = f'{{"inputs":[{{"name":"input","datatype":"{datatype}","shape":{shape},"data":['
    return Sent(filled(start.encode(), unit, b"]}]}"))


def pictures(datatype: str, count: int, value: bytes) -> Sent:
    shape = f"[{count},3,224,224]" if datatype == "FP32" else f"[{count},224,224,3]"
    start = f'{{"inputs":[{{"name":"input","datatype":"{datatype}","shape":{shape},"data":['
    return Sent(start.encode() + b",".join([value] * (count * PICTURE)) + b"]}]}", rows=count)


def nested(count: int) -> Sent:
    plane = b"[" + b",".join([b"[" + b",".join([b"0"] * 224) + b"]"] * 224) + b"]"
    picture = b"[" + b",".join([plane] * 3) + b"]"
    start = f'{{"inputs":[{{"name":"input","datatype":"FP32","shape":[{count},3,224,224],"data":['
    return Sent(start.encode() + b",".join([picture] * count) + b"]}]}", rows=count)


def binary(shape: int, payload: bytes) -> Sent:
    document = f'{{"inputs":[{{"name":"input","datatype":"BYTES","shape":[{shape}],'
    document += f'"parameters":{{"binary_data_size":{len(payload)}}}}}]}}'
    return Sent(document.encode() + payload, {"Inference-Header-Content-Length": str(len(document))})


def form(size: int, unit: bytes) -> Sent:
    start = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    body = start + unit * (size // len(unit)) + b"\r\n--b--\r\n"
    return Sent(body, {"Content-Type": "multipart/form-data; boundary=b"}, "/v1/classify")


ONE = b'{"name":"input","datatype":"BYTES","shape":[1],"data":[""]}'
OVER_HTTP: dict[str, Callable[[], Sent]] = {
    "empty elements": lambda: infer("BYTES", "[5500000]", b'""'),
    "empty elements, more than declared": lambda: infer("BYTES", "[64]", b'""'),
    "elements of a character": lambda: infer("BYTES", "[1]", b'"a"'),
    "objects for elements": lambda: infer("BYTES", "[64]", b'{"b64":""}'),
    "lists for elements": lambda: infer("BYTES", "[64,1]", b"[]"),
    "an element": lambda: Sent(infer("BYTES", "[1]", b'"' + b"AAAA" * 4_000_000 + b'"').body),
    "lists for numbers": lambda: infer("FP32", "[64,3,224,224]", b"[]"),
    "objects for numbers": lambda: infer("UINT8", "[64,224,224,3]", b"{}"),
    "texts for numbers": lambda: infer("FP32", "[64,3,224,224]", b'""'),
    "numbers that no picture has": lambda: infer("UINT8", "[64,224,224,3]", b"999"),
    "numbers of another datatype": lambda: infer("INT64", "[8000000]", b"1"),
    "a long shape": lambda: Sent(filled(b'{"inputs":[{"name":"input","datatype":"FP32","shape":[', b"999", b"]}]}")),
    "a long name": lambda: Sent(b'{"inputs":[{"name":"' + "\N{GRINNING FACE}".encode() + b"a" * BODY + b'"}]}'),
    "many inputs": lambda: Sent(filled(b'{"inputs":[', ONE, b"]}")),
    "many empty inputs": lambda: Sent(filled(b'{"inputs":[', b"{}", b"]}")),
    "many outputs": lambda: Sent(filled(b'{"inputs":[' + ONE + b'],"outputs":[', b'{"name":"output"}', b"]}")),
    "many parameters": lambda: Sent(filled(b'{"inputs":[' + ONE + b'],"parameters":{', b'"":0', b"}}")),
    "a deep id": lambda: Sent(b'{"inputs":[' + ONE + b'],"id":' + b'{"":' * (BODY // 5)),
    "what nobody asked for": lambda: Sent(filled(b'{"inputs":[{}],"x":[', b"{}", b"]}")),
    "no JSON": lambda: Sent(b"[" * BODY),
    "empty elements, binary": lambda: binary(4_000_000, bytes(BODY - 200)),
    "empty elements, binary, more than declared": lambda: binary(64, bytes(BODY - 200)),
    "a form with one part": lambda: form(BODY, b"x"),
    "a form with very many boundaries": lambda: form(BODY, b"\r\n--bx"),
    "a raw body": lambda: Sent(bytes(BODY), path="/v1/classify"),
    "an index of much": lambda: Sent(b'{"ready":' + b"[" * 60_000, path="/v2/repository/index"),
    "whole numbers": lambda: pictures("UINT8", 50, b"0"),
    "fractions": lambda: pictures("FP32", 18, b"0.123"),
    "fractions of a digit": lambda: pictures("FP32", 55, b"0"),
    "nested numbers": lambda: nested(50),
}


def tensor(datatype: str, shape: list[int], field: str, values: object) -> bytes:
    message = INFERENCE["ModelInferRequest"](model_name="small")
    entry = message.inputs.add(name="input", datatype=datatype, shape=shape)
    getattr(entry.contents, field).extend(values)
    encoded: bytes = message.SerializeToString()
    return encoded


def elements(shape: int, payload: bytes) -> bytes:
    message = INFERENCE["ModelInferRequest"](model_name="small", raw_input_contents=[payload])
    message.inputs.add(name="input", datatype="BYTES", shape=[shape])
    encoded: bytes = message.SerializeToString()
    return encoded


OVER_GRPC: dict[str, Callable[[], tuple[bytes, int]]] = {
    "empty elements": lambda: (tensor("BYTES", [8_000_000], "bytes_contents", [b""] * 8_000_000), 0),
    "empty elements, raw": lambda: (elements(4_000_000, bytes(BODY - 200)), 0),
    "empty elements, raw, more than declared": lambda: (elements(64, bytes(BODY - 200)), 0),
    "many inputs": lambda: (b"\x2a\x00" * (BODY // 2), 0),
    "many outputs": lambda: (b"\x32\x00" * (BODY // 2), 0),
    "many parameters": lambda: (b"\x22\x00" * (BODY // 2), 0),
    "many raw contents": lambda: (b"\x3a\x00" * (BODY // 2), 0),
    "a long shape": lambda: (tensor("FP32", [1] * BODY, "fp32_contents", []), 0),
    "long numbers": lambda: (tensor("INT64", [BODY - 100], "int64_contents", np.ones(BODY - 100, int)), 0),
    "a long name": lambda: (b"\x0a" + b"\xf0\xff\xff\x07" + b"a" * (2**24 - 16), 0),
    "nonsense": lambda: (b"\xff" * BODY, 0),
    "whole numbers": lambda: (tensor("UINT8", [40, 224, 224, 3], "uint_contents", np.ones(40 * PICTURE, int)), 40),
    "more whole numbers": lambda: (tensor("UINT8", [60, 224, 224, 3], "uint_contents", np.ones(60 * PICTURE, int)), 0),
    "fractions": lambda: (tensor("FP32", [27, 3, 224, 224], "fp32_contents", np.ones(27 * PICTURE)), 27),
}


@pytest.fixture(scope="module", params=[0, 2])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = small_folder(tmp_path_factory.mktemp("models") / "small")
    options = {"model_path": folder, "threads": 1, "grpc_port": 0, "max_upload_bytes": 64 * 1024 * 1024}
    options["page"] = False  # for which a process of its own takes a profile, whose memory would count
    with ServerProcess("--frontends", str(request.param), **options) as running:
        warm_up(running)
        yield running
        assert running.stop() == 0, running.describe()


def warm_up(server: ServerProcess) -> None:
    """Have every process meet what it keeps: its libraries' tables, its slots, its largest batches."""
    for _ in range(4):
        with server.client() as client:  # a connection each, so that every frontend gets some
            sent = pictures("UINT8", 30, b"0")
            assert client.post(PATH, content=sent.body).status_code == 200
        over_grpc(server, pictures_message(16))


def pictures_message(count: int) -> bytes:
    return tensor("UINT8", [count, 224, 224, 3], "uint_contents", np.ones(count * PICTURE, int))


def over_grpc(server: ServerProcess, data: bytes, compression: grpc.Compression | None = None) -> grpc.StatusCode:
    (address,) = {
        found[1] for line in server.log if (found := re.search(r"listening for gRPC address=\"?([\d.:]+)", line))
    }
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        infer = channel.unary_unary(f"/{INFERENCE.service}/ModelInfer")
        try:
            infer(data, compression=compression, timeout=120)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def budget(server: ServerProcess, body: int, rows: int) -> int:
    mapped = 2 if children(server) else 1  # the rows of a frontend are memory of the engine process too
    return max(4 * body, 64 * 1024 * 1024) + rows * PICTURE * 4 * mapped


PACKED = ["empty elements", "elements of a character", "fractions of a digit", "empty elements, binary"]


@pytest.mark.parametrize(
    ("case", "packed"), [*((case, False) for case in OVER_HTTP), *((case, True) for case in PACKED)]
)
def test_a_request_over_http_stays_in_its_budget(case: str, packed: bool, server: ServerProcess) -> None:
    sent = OVER_HTTP[case]()
    assert len(sent.body) <= 16 * 1024 * 1024
    headers, body = sent.headers, sent.body
    if packed:
        headers, body = {**headers, "Content-Encoding": "gzip"}, gzip.compress(body, 1)
    with growth(server) as grown, server.client() as client:
        answer = client.post(sent.path, content=body, headers=headers)
    assert answer.status_code < 500
    assert (answer.status_code == 200) == bool(sent.rows), answer.text[:400]
    assert grown.bytes <= budget(server, len(sent.body), sent.rows)


@pytest.mark.parametrize("case", OVER_GRPC)
def test_a_request_over_grpc_stays_in_its_budget(case: str, server: ServerProcess) -> None:
    data, rows = OVER_GRPC[case]()
    assert len(data) <= 16 * 1024 * 1024
    with growth(server) as grown:
        status = over_grpc(server, data)
    assert status is (grpc.StatusCode.OK if rows else grpc.StatusCode.INVALID_ARGUMENT)
    assert grown.bytes <= budget(server, len(data), rows)


def test_what_unpacks_to_more_than_a_body_may_have_stays_in_the_budget_of_one(server: ServerProcess) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    packed = b"".join(bomb.compress(bytes(2**20)) for _ in range(160)) + bomb.flush()  # ten bodies
    with growth(server) as grown, server.client() as client:
        answer = client.post(PATH, content=packed, headers={"Content-Encoding": "gzip"})
        assert answer.json()["code"] == "body_too_large"
        assert over_grpc(server, bytes(10 * 2**24), grpc.Compression.Gzip) is not grpc.StatusCode.OK
    assert grown.bytes <= budget(server, BODY, 0)
