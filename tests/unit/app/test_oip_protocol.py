"""The wire of the Open Inference Protocol: what clients write is read back exactly, and nothing else gets through."""

from __future__ import annotations

import base64
import gzip
import json
import math
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.errors import (
    BodyTooLargeError,
    InvalidInferenceRequestError,
    RequestError,
    UnsupportedEncodingError,
    UnsupportedOperationError,
)
from app.protocol.oip.compression import choose_encoding, compress, decompress
from app.protocol.oip.datatypes import DTYPES, elements_from_binary, pack_elements
from app.protocol.oip.request import InferRequest, parse_raw_request, parse_request
from app.protocol.oip.response import HEADER_LENGTH, OutputTensor, build_response, classify_output

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
NAMES = st.text(min_size=1, max_size=12)


def body_of(document: object, *payloads: bytes) -> tuple[bytes, int]:
    header = json.dumps(document).encode()
    return header + b"".join(payloads), len(header)


def one_input(**entry: object) -> dict[str, object]:
    return {"inputs": [{"name": "input", "datatype": "UINT8", "shape": [2], **entry}]}


def parse(document: object, *payloads: bytes) -> InferRequest:
    body, length = body_of(document, *payloads)
    return parse_request(body, length if payloads else None)


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> RequestError | None:
    """The error that a call is refused with, or None when it is not; any other exception goes on."""
    try:
        call(*arguments, **options)
    except RequestError as error:
        return error
    return None


def check_refusal(error: RequestError | None) -> None:
    if error is not None:
        assert error.status in (400, 413, 415)
        assert error.message.endswith(".")
        assert len(error.message) < 400


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    # numpy's strategies want native byte order, which is the wire's on every machine that runs the tests.
    dtype = DTYPES[datatype].newbyteorder("=")
    return datatype, draw(hnp.arrays(dtype, SHAPES))


@given(st.lists(st.tuples(NAMES, numbers()), min_size=1, max_size=4, unique_by=lambda item: item[0]), st.text())
def test_binary_tensors_are_read_back_exactly(inputs: list[tuple[str, tuple[str, np.ndarray]]], identity: str) -> None:
    entries = [
        {
            "name": name,
            "datatype": datatype,
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, (datatype, array) in inputs
    ]
    body, length = body_of({"id": identity, "inputs": entries}, *(array.tobytes() for _, (_, array) in inputs))
    request = parse_request(body, length)
    assert request.id == identity
    for tensor, (name, (datatype, array)) in zip(request.inputs, inputs, strict=True):
        assert (tensor.name, tensor.datatype, tensor.shape) == (name, datatype, array.shape)
        assert tensor.values is not None
        assert tensor.values.tobytes() == array.tobytes()


@given(numbers(), st.booleans())
def test_json_tensors_are_read_back_exactly(tensor: tuple[str, np.ndarray], nested: bool) -> None:
    datatype, array = tensor
    data = array.tolist() if nested else array.ravel().tolist()
    document = {"inputs": [{"name": "i", "datatype": datatype, "shape": list(array.shape), "data": data}]}
    if datatype == "FP16":
        with pytest.raises(InvalidInferenceRequestError, match="FP16"):
            parse(document)
        return
    if array.size == 0 and nested and 0 in array.shape[:-1]:
        return  # [] says nothing about the dimensions behind the empty one
    values = parse(document).inputs[0].values
    assert values is not None
    np.testing.assert_array_equal(values, array)
    assert values.dtype == DTYPES[datatype]


@given(st.lists(st.binary(max_size=50), max_size=6), st.sampled_from(["prefixed", "sizes", "json", "json objects"]))
def test_elements_are_read_back_exactly(elements: list[bytes], form: str) -> None:
    entry: dict[str, object] = {"name": "i", "datatype": "BYTES", "shape": [len(elements)]}
    payload = b""
    if form == "prefixed":
        payload = pack_elements(elements)
        entry["parameters"] = {"binary_data_size": len(payload)}
    elif form == "sizes":
        if not elements:
            return
        payload = b"".join(elements)
        entry["parameters"] = {"binary_data_size": ",".join(str(len(element)) for element in elements)}
    else:
        texts = [base64.b64encode(element).decode() for element in elements]
        entry["data"] = texts if form == "json" else [{"b64": text} for text in texts]
    body, length = body_of({"inputs": [entry]}, payload)
    assert [bytes(element) for element in parse_request(body, length).inputs[0].elements] == elements


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
def test_a_shortened_bytes_tensor_is_refused(elements: list[bytes], data: st.DataObject) -> None:
    packed = pack_elements(elements)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(InvalidInferenceRequestError):
        elements_from_binary("i", (len(elements),), memoryview(packed[:cut]))
    with pytest.raises(InvalidInferenceRequestError):
        elements_from_binary("i", (len(elements) - 1,), memoryview(packed))


KEYS = ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id"]
KEYS += ["binary_data_size", "binary_data", "classification", "priority", "timeout", "b64"]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("BYTES") | st.just("UINT8"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=4),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(JSON_VALUES, st.binary(max_size=30), st.none() | st.integers(-3, 400))
def test_any_json_is_parsed_or_refused_in_a_sentence(document: object, payload: bytes, length: int | None) -> None:
    for value in (document, {"inputs": [document]}, {"inputs": [one_input()["inputs"][0], document]}):  # type: ignore[index]
        body, exact = body_of(value, payload)
        for header in (length, exact):
            check_refusal(refusal(parse_request, body, header))


@given(st.data())
def test_a_damaged_body_is_parsed_or_refused(data: st.DataObject) -> None:
    entry = {"name": "i", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    body, length = body_of({"id": "1", "inputs": [entry], "outputs": [{"name": "o"}]}, b"\0" * 8)
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    check_refusal(refusal(parse_request, bytes(damaged), data.draw(st.sampled_from([None, length, length - 1]))))


REFUSED: dict[str, tuple[object, bytes, str]] = {
    "not an object": ([], b"", "JSON object"),
    "no inputs": ({}, b"", "inputs must be a list"),
    "empty inputs": ({"inputs": []}, b"", "no inputs"),
    "no data": (one_input(), b"", "exactly one of data"),
    "data twice": (one_input(data=[1, 2], parameters={"binary_data_size": 2}), b"12", "exactly one of data"),
    "unknown datatype": (one_input(datatype="STRING", data=[1]), b"", "'STRING'"),
    "negative dimension": (one_input(shape=[-1], data=[1]), b"", "whole numbers"),
    "dimension true": (one_input(shape=[True], data=[1]), b"", "whole numbers"),
    "too many values": (one_input(data=[1, 2, 3]), b"", "shape [3]"),
    "ragged": (one_input(shape=[2, 2], data=[[1, 2], [3]]), b"", "list of UINT8"),
    "out of range": (one_input(data=[1, 256]), b"", "0 to 255"),
    "fractions of 64 bits": (one_input(datatype="UINT64", data=[1, 1.5]), b"", "list of UINT64"),
    "negative of 64 bits": (one_input(datatype="UINT64", data=[-1, 2**63]), b"", "list of UINT64"),
    "beyond 64 bits": (one_input(data=[1, 2**70]), b"", "list of UINT8"),
    "fractions": (one_input(data=[1, 1.5]), b"", "list of UINT8"),
    "text": (one_input(data=["1", "2"]), b"", "list of UINT8"),
    "too few bytes": (one_input(parameters={"binary_data_size": 1}), b"1", "needs 2 bytes"),
    "bytes missing": (one_input(parameters={"binary_data_size": 2}), b"1", "has 1 left"),
    "bytes left over": (one_input(parameters={"binary_data_size": 2}), b"123", "belong to no input"),
    "size negative": (one_input(parameters={"binary_data_size": -1}), b"", "whole number of bytes"),
    "size as text": (one_input(parameters={"binary_data_size": "2"}), b"12", "whole number of bytes"),
    "reserved parameter": ({**one_input(data=[1, 2]), "parameters": {"triton_x": 1}}, b"", "reserved"),
    "parameter of another kind": ({**one_input(data=[1, 2]), "parameters": {"x": []}}, b"", "text, number or boolean"),
    "timeout negative": ({**one_input(data=[1, 2]), "parameters": {"timeout": -1}}, b"", "microseconds"),
    "priority text": ({**one_input(data=[1, 2]), "parameters": {"priority": "high"}}, b"", "priority"),
    "no classes": (
        {**one_input(data=[1, 2]), "outputs": [{"name": "o", "parameters": {"classification": 0}}]},
        b"",
        "above 0",
    ),
    "not base64": (one_input(datatype="BYTES", shape=[1], data=["\xff"]), b"", "base64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    document, payload, reason = REFUSED[case]
    body, length = body_of(document, payload)
    with pytest.raises(InvalidInferenceRequestError) as caught:
        parse_request(body, length)
    assert reason in caught.value.message


@pytest.mark.parametrize("length", [-1, 0, 1000])
def test_a_header_length_outside_the_body_is_refused(length: int) -> None:
    with pytest.raises(InvalidInferenceRequestError, match="Inference-Header-Content-Length"):
        parse_request(b"{}", length)


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000, b'{"a": ' * 100_000, b"1" * 5000])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInferenceRequestError):
        parse_request(text, None)


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shared_memory_is_said_to_be_unsupported(where: str) -> None:
    document = one_input(data=[1, 2])
    entry = {"name": "o", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 2}}
    document[where] = [{**entry, "datatype": "UINT8", "shape": [2]}]
    with pytest.raises(UnsupportedOperationError):
        parse(document)


def test_options_of_a_request() -> None:
    document = {
        **one_input(data=[1, 2]),
        "parameters": {"binary_data_output": True, "priority": 1, "timeout": 2_500_000, "mine": "x"},
        "outputs": [
            {"name": "a"},
            {"name": "b", "parameters": {"binary_data": False}},
            {"name": "c", "parameters": {"classification": 3}},
        ],
    }
    request = parse(document)
    assert (request.priority, request.timeout_seconds, request.binary_outputs) == (1, 2.5, True)
    assert [(o.name, o.binary, o.classes) for o in request.outputs or ()] == [
        ("a", True, 0),
        ("b", False, 0),
        ("c", True, 3),
    ]
    plain = parse(one_input(data=[1, 2]))
    assert (plain.outputs, plain.binary_outputs, plain.timeout_seconds) == (None, False, None)


def test_a_raw_body_is_the_tensor_of_its_size_or_an_image_file() -> None:
    tensor = parse_raw_request(np.arange(12, dtype="<f4").tobytes(), "x", (1, 3, 2, 2)).inputs[0]
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", "FP32", (1, 3, 2, 2))
    element = parse_raw_request(b"\xff\xd8\xff", "x", (1, 3, 2, 2)).inputs[0]
    assert (element.datatype, element.shape, [bytes(e) for e in element.elements]) == ("BYTES", (1,), [b"\xff\xd8\xff"])


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    st.booleans(),
    st.text(max_size=8),
)
def test_outputs_can_be_read_by_a_client(values: np.ndarray, binary: bool, identity: str) -> None:
    labels = [f"label {index}" for index in range(values.shape[1])]
    best = classify_output("best", values, 2, labels)
    headers, body = build_response(
        "m", "2", identity, [(OutputTensor("o", values.shape, values), binary), (best, binary)]
    )
    length = int(headers.get(HEADER_LENGTH, len(body)))
    assert (HEADER_LENGTH in headers) == binary
    document, rest = json.loads(body[:length]), body[length:]
    assert (document["model_name"], document["model_version"], document.get("id", "")) == ("m", "2", identity)
    first, second = document["outputs"]
    assert (first["datatype"], first["shape"]) == ("FP32", list(values.shape))
    assert (second["datatype"], second["shape"]) == ("BYTES", [len(values), min(2, values.shape[1])])
    if binary:
        size = first["parameters"]["binary_data_size"]
        got = np.frombuffer(rest[:size], "<f4").reshape(values.shape)
        texts = [
            bytes(e).decode() for e in elements_from_binary("best", tuple(second["shape"]), memoryview(rest[size:]))
        ]
    else:
        got, texts = np.array(first["data"], "<f4").reshape(values.shape), second["data"]
    np.testing.assert_array_equal(got, values)
    for row, text in zip(values, texts[:: second["shape"][1]], strict=True):
        value, index, label = text.split(":")
        assert int(index) == int(row.argmax())
        assert label == labels[int(index)]
        assert value == f"{row[int(index)]:.6f}"


@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]))
def test_compressed_bodies_are_unpacked_up_to_the_limit(body: bytes, encoding: str) -> None:
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)
    assert decompress(packed, encoding, limit=len(body)) == body
    assert decompress(compress(body, encoding), encoding.upper(), limit=len(body)) == body
    if body:
        with pytest.raises(BodyTooLargeError):
            decompress(packed, encoding, limit=len(body) - 1)
    with pytest.raises(InvalidInferenceRequestError):
        decompress(packed[:-1], encoding, limit=len(body))
    with pytest.raises(InvalidInferenceRequestError):
        decompress(packed + b"x", encoding, limit=len(body))


@settings(max_examples=50)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_unpacked_or_refused(body: bytes, encoding: str) -> None:
    check_refusal(refusal(decompress, body, encoding, limit=1000))


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(BodyTooLargeError, match="1000 bytes"):
        decompress(bomb, "deflate", limit=1000)


def test_other_encodings_are_unsupported_and_the_answer_says_which_are() -> None:
    with pytest.raises(UnsupportedEncodingError) as caught:
        decompress(b"", "br", limit=10)
    assert caught.value.headers() == {"Accept-Encoding": "gzip, deflate"}


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("gzip;q=0, *", "deflate"),
        ("gzip;q=x", None),
        ("*", "gzip"),
        ("*;q=0", None),
        ("GZIP", "gzip"),
    ],
)
def test_answers_are_compressed_as_the_client_asks(accepted: str | None, chosen: str | None) -> None:
    assert choose_encoding(accepted, 4096) == chosen
    assert choose_encoding(accepted, 100) is None


def test_shapes_of_huge_products_need_no_memory() -> None:
    huge = [2**31 - 1] * 8
    for datatype in ("FP32", "BYTES"):
        with pytest.raises(InvalidInferenceRequestError):
            parse(one_input(datatype=datatype, shape=huge, parameters={"binary_data_size": 4}), b"\0\0\0\0")
    assert math.prod(huge) > 2**200
