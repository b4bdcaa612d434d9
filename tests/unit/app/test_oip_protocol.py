"""The wire of the Open Inference Protocol: what clients write is read back exactly, and nothing else gets through."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tessera.app.errors import (
    InvalidInferenceRequestError,
    TooManyImagesError,
    UnsupportedOperationError,
)
from tessera.app.oip.wire.datatypes import DTYPES, elements_from_binary, pack_elements
from tessera.app.oip.wire.interface import Interface
from tessera.app.oip.wire.request import InferRequest, parse_raw_request, parse_request
from tessera.app.oip.wire.response import HEADER_LENGTH, OutputTensor, build_response, classify_output
from tests.unit.app.refusals import check_refusal, refusal

INTERFACE = Interface("input", "output", (2, 3), [f"label {index}" for index in range(5)], max_images=6)
VALUES = 18  # of one picture


def body_of(document: object, *payloads: bytes) -> tuple[bytes, int]:
    header = json.dumps(document).encode()
    return header + b"".join(payloads), len(header)


def one_input(**entry: object) -> dict[str, object]:
    return {"inputs": [{"name": "input", "datatype": "UINT8", "shape": [1, 2, 3, 3], **entry}]}


def parse(document: object, *payloads: bytes) -> InferRequest:
    body, length = body_of(document, *payloads)
    return parse_request(body, length if payloads else None, INTERFACE)


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from(["FP32", "UINT8"]))
    # numpy's strategies want native byte order, which is the wire's on every machine that runs the tests.
    dtype = DTYPES[datatype].newbyteorder("=")
    finite = {"allow_nan": False, "allow_infinity": False} if datatype == "FP32" else {}
    shape = (draw(st.integers(1, INTERFACE.max_images)), *INTERFACE.row_shapes[datatype])
    return datatype, draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **finite)))


@given(numbers(), st.text())
def test_binary_tensors_are_read_back_exactly(tensor: tuple[str, np.ndarray], identity: str) -> None:
    datatype, array = tensor
    entry = {"name": "input", "datatype": datatype, "shape": list(array.shape)}
    entry["parameters"] = {"binary_data_size": array.nbytes}
    body, length = body_of({"id": identity, "inputs": [entry]}, array.tobytes())
    request = parse_request(body, length, INTERFACE)
    assert request.id == identity
    read = request.input
    assert (read.name, read.datatype, read.shape) == ("input", datatype, array.shape)
    assert read.values is not None
    assert read.values.tobytes() == array.tobytes()


@given(numbers(), st.booleans(), st.none() | st.integers(0, 3))
def test_json_tensors_are_read_back_exactly(tensor: tuple[str, np.ndarray], nested: bool, indent: int | None) -> None:
    datatype, array = tensor
    data = array.tolist() if nested else array.ravel().tolist()
    document = {"inputs": [{"name": "input", "datatype": datatype, "shape": list(array.shape), "data": data}]}
    values = parse_request(json.dumps(document, indent=indent).encode(), None, INTERFACE).input.values
    assert values is not None
    np.testing.assert_array_equal(values, array)
    assert values.dtype == DTYPES[datatype]


@pytest.mark.parametrize("indent", [None, 1])
def test_json_tensors_longer_than_a_piece_are_read_back_exactly(indent: int | None) -> None:
    interface = Interface("input", "output", (90, 110), [], max_images=4)
    array = np.random.default_rng(1).normal(size=(3, 3, 90, 110)).astype(np.float32)
    for data in (array.tolist(), array.ravel().tolist()):
        document = {"inputs": [{"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": data}]}
        values = parse_request(json.dumps(document, indent=indent).encode(), None, interface).input.values
        np.testing.assert_array_equal(values, array)


def test_a_request_that_is_given_up_is_not_read_on() -> None:
    class GivenUpError(Exception):
        pass

    steps = []

    def proceed() -> None:
        steps.append(1)
        if len(steps) == 3:
            raise GivenUpError

    interface = Interface("input", "output", (300, 300), [], max_images=4)
    data = b'{"inputs":[{"name":"input","datatype":"UINT8","shape":[1,300,300,3],"data":[0' + b",0" * 269_999 + b"]}]}"
    with pytest.raises(GivenUpError):
        parse_request(data, None, interface, proceed)
    assert len(steps) == 3


@given(
    st.lists(st.binary(max_size=50), min_size=1, max_size=6),
    st.sampled_from(["prefixed", "sizes", "json", "json objects"]),
)
def test_elements_are_read_back_exactly(elements: list[bytes], form: str) -> None:
    entry: dict[str, object] = {"name": "input", "datatype": "BYTES", "shape": [len(elements)]}
    payload = b""
    if form == "prefixed":
        payload = pack_elements(elements)
        entry["parameters"] = {"binary_data_size": len(payload)}
    elif form == "sizes":
        payload = b"".join(elements)
        entry["parameters"] = {"binary_data_size": ",".join(str(len(element)) for element in elements)}
    else:
        texts = [base64.b64encode(element).decode() for element in elements]
        entry["data"] = texts if form == "json" else [{"b64": text} for text in texts]
    body, length = body_of({"inputs": [entry]}, payload)
    assert list(parse_request(body, length, INTERFACE).input.elements) == elements


def test_elements_of_a_column_may_be_nested() -> None:
    request = parse(one_input(datatype="BYTES", shape=[2, 1], data=[["QQ=="], [{"b64": "Qg=="}]]))
    assert request.input.elements == (b"A", b"B")


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
            check_refusal(refusal(parse_request, body, header, INTERFACE))


@given(st.data())
def test_a_damaged_body_is_parsed_or_refused(data: st.DataObject) -> None:
    entry = {"name": "input", "datatype": "FP32", "shape": [1, 3, 2, 3], "parameters": {"binary_data_size": 72}}
    body, length = body_of({"id": "1", "inputs": [entry], "outputs": [{"name": "output"}]}, b"\0" * 72)
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    header = data.draw(st.sampled_from([None, length, length - 1]))
    check_refusal(refusal(parse_request, bytes(damaged), header, INTERFACE))


ZEROS = [0] * VALUES
REFUSED: dict[str, tuple[object, bytes, str]] = {
    "not an object": ([], b"", "JSON object"),
    "inputs missing": ({}, b"", "inputs must be a list"),
    "inputs an object": ({"inputs": {}}, b"", "inputs must be a list"),
    "no inputs": ({"inputs": []}, b"", "no inputs"),
    "two inputs": ({"inputs": [one_input(data=ZEROS), {}]}, b"", "more than one input"),
    "an input that is no object": ({"inputs": [1]}, b"", "Each of inputs"),
    "another input": (one_input(name="x" * 90, data=ZEROS), b"", "xxx...'; its only input is 'input'"),
    "a name without end": (one_input(name="x" * 70_000, data=ZEROS), b"", "name takes 70002 bytes"),
    "no data": (one_input(), b"", "exactly one of data"),
    "data twice": (one_input(data=ZEROS, parameters={"binary_data_size": VALUES}), bytes(VALUES), "exactly one of"),
    "unknown datatype": (one_input(datatype="STRING", data=[1]), b"", "'STRING'"),
    "another datatype": (one_input(datatype="INT8", data=ZEROS), b"", "'INT8'; it takes FP32 [N,3,2,3]"),
    "negative dimension": (one_input(shape=[-1], data=[1]), b"", "whole numbers"),
    "dimension true": (one_input(shape=[True], data=[1]), b"", "whole numbers"),
    "another shape": (one_input(shape=[1, 3, 2, 3], data=ZEROS), b"", "expected is [N, 2, 3, 3]"),
    "no image": (one_input(shape=[0, 2, 3, 3], data=[]), b"", "at least 1"),
    "an element for each of two columns": (one_input(datatype="BYTES", shape=[1, 2], data=["", ""]), b"", "[N]"),
    "too many values": (one_input(data=[*ZEROS, 0]), b"", "must be 18 values"),
    "too few values": (one_input(data=ZEROS[1:]), b"", "must be 18 values"),
    "no values": (one_input(data=[]), b"", "must be 18 values"),
    "a value": (one_input(data=0), b"", "must be 18 values"),
    "ragged": (one_input(data=[[[[0] * 3] * 3, [[0] * 3] * 2 + [[0] * 4]]]), b"", "must be 18 values"),
    "nested otherwise": (one_input(data=[[[[0] * 3] * 2] * 3]), b"", "must be 18 values"),
    "nested deeper": (one_input(data=[[ZEROS]]), b"", "must be 18 values"),
    "a list for a value": (one_input(data=[*ZEROS[1:], [0]]), b"", "must be 18 values"),
    "out of range": (one_input(data=[*ZEROS[1:], 256]), b"", "0 to 255"),
    "negative": (one_input(data=[-1, *ZEROS[1:]]), b"", "0 to 255"),
    "beyond 64 bits": (one_input(data=[*ZEROS[1:], 2**70]), b"", "0 to 255"),
    "fractions": (one_input(data=[*ZEROS[1:], 1.5]), b"", "0 to 255"),
    "text": (one_input(data=["1"] * VALUES), b"", "0 to 255"),
    "text of brackets": (one_input(data=[*ZEROS[1:], "[,"]), b"", "must be"),
    "true": (one_input(datatype="FP32", shape=[1, 3, 2, 3], data=[True] * VALUES), b"", "must be FP32 values"),
    "null": (one_input(datatype="FP32", shape=[1, 3, 2, 3], data=[None] * VALUES), b"", "must be FP32 values"),
    "objects": (one_input(data=[{}] * VALUES), b"", "0 to 255"),
    "too few bytes": (one_input(parameters={"binary_data_size": 1}), b"1", "needs 18 bytes"),
    "bytes missing": (one_input(parameters={"binary_data_size": 2}), b"1", "has 1 left"),
    "bytes left over": (one_input(parameters={"binary_data_size": 2}), b"123", "beyond those of its inputs"),
    "bytes beside data": (one_input(data=ZEROS), b"123", "beyond those of its inputs"),
    "size negative": (one_input(parameters={"binary_data_size": -1}), b"", "whole number of bytes"),
    "size as text": (one_input(parameters={"binary_data_size": "2"}), b"12", "whole number of bytes"),
    "too many sizes": (
        one_input(datatype="BYTES", shape=[2], parameters={"binary_data_size": "1,1,1"}),
        b"123",
        "needs 2 BYTES elements; it has 3",
    ),
    "too many elements": (
        one_input(datatype="BYTES", shape=[1], data=["", ""]),
        b"",
        "a list of 1 BYTES element, each",
    ),
    "too few elements": (one_input(datatype="BYTES", shape=[2], data=[""]), b"", "2 BYTES elements; it has 1"),
    "reserved parameter": ({**one_input(data=ZEROS), "parameters": {"triton_x": 1}}, b"", "reserved"),
    "parameter of another kind": ({**one_input(data=ZEROS), "parameters": {"x": []}}, b"", "text, number or boolean"),
    "empty final response 1": (
        {**one_input(data=ZEROS), "parameters": {"triton_enable_empty_final_response": 1}},
        b"",
        "true or false",
    ),
    "parameters without end": ({**one_input(data=ZEROS), "parameters": {"x": "x" * 70_000}}, b"", "at most 65536"),
    "timeout negative": ({**one_input(data=ZEROS), "parameters": {"timeout": -1}}, b"", "microseconds"),
    "priority text": ({**one_input(data=ZEROS), "parameters": {"priority": "high"}}, b"", "priority"),
    "another output": ({**one_input(data=ZEROS), "outputs": [{"name": "x"}]}, b"", "no output 'x'"),
    "an output twice": ({**one_input(data=ZEROS), "outputs": [{"name": "output"}] * 2}, b"", "asks for 2 outputs"),
    "no classes": (
        {**one_input(data=ZEROS), "outputs": [{"name": "output", "parameters": {"classification": 0}}]},
        b"",
        "above 0",
    ),
    "not base64": (one_input(datatype="BYTES", shape=[1], data=["\xff"]), b"", "base64"),
    "base64 without its end": (one_input(datatype="BYTES", shape=[1], data=["QQ"]), b"", "base64"),
    "a text for elements": (one_input(datatype="BYTES", shape=[1], data="QQ=="), b"", "base64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    document, payload, reason = REFUSED[case]
    body, length = body_of(document, payload)
    with pytest.raises(InvalidInferenceRequestError) as caught:
        parse_request(body, length, INTERFACE)
    assert reason in caught.value.message
    assert len(caught.value.message) < 400


def test_more_images_than_the_limit_are_too_many() -> None:
    for datatype, shape in (("BYTES", [7]), ("UINT8", [7, 2, 3, 3]), ("FP32", [2**31 - 1, 3, 2, 3])):
        with pytest.raises(TooManyImagesError, match="limit is 6"):
            parse(one_input(datatype=datatype, shape=shape, data=[]))


@pytest.mark.parametrize("length", [-1, 0, 1000])
def test_a_header_length_outside_the_body_is_refused(length: int) -> None:
    with pytest.raises(InvalidInferenceRequestError, match="Inference-Header-Content-Length"):
        parse_request(b"{}", length, INTERFACE)


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000, b'{"a": ' * 100_000, b"1" * 5000])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInferenceRequestError):
        parse_request(text, None, INTERFACE)


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shared_memory_is_said_to_be_unsupported(where: str) -> None:
    document = one_input(data=ZEROS)
    entry = {"name": where[:-1], "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 2}}
    document[where] = [{**entry, "datatype": "UINT8", "shape": [1, 2, 3, 3]}]
    with pytest.raises(UnsupportedOperationError):
        parse(document)


def test_options_of_a_request() -> None:
    parameters = {"binary_data_output": True, "priority": 1, "timeout": 2_500_000, "mine": "x"}
    parameters["triton_enable_empty_final_response"] = True
    for asked, read in (
        ({}, (True, 0)),
        ({"binary_data": False}, (False, 0)),
        ({"classification": 3}, (True, 3)),
    ):
        document = {
            **one_input(data=ZEROS),
            "parameters": parameters,
            "outputs": [{"name": "output", "parameters": asked}],
        }
        request = parse(document)
        assert (request.priority, request.timeout_seconds, request.binary_outputs) == (1, 2.5, True)
        assert [(o.name, o.binary, o.classes) for o in request.outputs or ()] == [("output", *read)]
    plain = parse(one_input(data=ZEROS))
    assert (plain.outputs, plain.binary_outputs, plain.timeout_seconds) == (None, False, None)


def test_a_raw_body_is_the_tensor_of_its_size_or_an_image_file() -> None:
    tensor = parse_raw_request(np.arange(VALUES, dtype="<f4").tobytes(), INTERFACE).input
    assert (tensor.name, tensor.datatype, tensor.shape) == ("input", "FP32", (1, 3, 2, 3))
    element = parse_raw_request(b"\xff\xd8\xff", INTERFACE).input
    assert (element.datatype, element.shape, element.elements) == ("BYTES", (1,), (b"\xff\xd8\xff",))


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


def test_shapes_of_huge_products_need_no_memory() -> None:
    huge = [2**31 - 1] * 8
    for datatype in ("FP32", "BYTES"):
        with pytest.raises(InvalidInferenceRequestError, match="expected is"):
            parse(one_input(datatype=datatype, shape=huge, parameters={"binary_data_size": 4}), b"\0\0\0\0")
    assert math.prod(huge) > 2**200
